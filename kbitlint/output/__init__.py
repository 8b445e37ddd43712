"""Reporters: one file a format, each with ``render``."""
