"""Edits of live models, and their undo."""
