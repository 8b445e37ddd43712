"""The model surface: everything that imports torch."""
