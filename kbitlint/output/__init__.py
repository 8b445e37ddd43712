"""Renderers of results: one file for each format, with a function ``render``."""
