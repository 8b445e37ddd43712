"""The version and the address of kbitlint, for modules that the package itself imports."""

VERSION = "0.1.0"
#: where the repository is published; `project.urls` of pyproject.toml says the same
HOME = "https://github.com/kbitlint/kbitlint"
