"""Follows a script without running it."""
