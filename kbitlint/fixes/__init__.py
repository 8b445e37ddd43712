"""Fixes of models and files: planned, applied, undone and proved."""
