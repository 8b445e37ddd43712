"""Behaviour of other libraries, as data. If one of them releases a change, a row here changes."""
