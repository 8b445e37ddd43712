"""The version of kbitlint, for modules that the package itself imports."""

VERSION = "0.1.0"
