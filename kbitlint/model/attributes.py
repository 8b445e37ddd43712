"""Reads attributes of other people's objects, which may raise anything."""

from __future__ import annotations

from typing import Any


def attribute(owner: Any, name: str, default: Any = None) -> Any:
    """Return an attribute, or the default where there is none or reading it raises: properties run any code."""
    try:
        return getattr(owner, name, default)
    except Exception:  # noqa: BLE001  # what cannot be read is not known, and the model's own code will raise it in training
        return default
