"""One training step without weights."""
