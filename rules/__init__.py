"""The rules of kbitlint, one in each module. The registry finds them; no module imports them by name."""
