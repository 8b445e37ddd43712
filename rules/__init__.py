"""kbitlint's own rules, one in each module. They are found by the registry; nothing imports them by name."""
