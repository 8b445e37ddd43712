"""What we know of other people's libraries, as data: when one of them releases, a row here changes."""
