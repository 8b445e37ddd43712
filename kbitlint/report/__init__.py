"""Reporters: one file a format, each with ``render``."""

from __future__ import annotations

FORMATS = ("text", "json")
