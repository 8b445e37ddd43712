"""Models, built with or without weights."""
