"""Records of ranks as JSON. Reading the record of another process runs no code."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
from typing import Any

from kbitlint.runtime.records import Codec


def dumps(record: Any) -> bytes:
    """Return a record of frozen dataclasses, enums and plain values as JSON.

    Raises:
        TypeError: It holds an object of another type.
    """
    return json.dumps(_CODEC.packed(record), separators=(",", ":")).encode()


def loads(data: bytes) -> Any:
    """Return the record whose JSON ``dumps`` has returned.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, ImportError: The data have another form.
    """
    return _CODEC.unpacked(json.loads(data))


def _name(kind: type) -> str | None:
    name = f"{kind.__module__}:{kind.__qualname__}"
    return name if _is_known(name, kind) else None


def _class(name: str) -> Any:
    """Return a dataclass or enum of kbitlint by module and name."""
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute) if module.startswith("kbitlint.") else None
    if not _is_known(name, found):
        raise LookupError(f"{name} is no record")
    return found


def _is_known(name: str, kind: Any) -> bool:
    return (
        name.startswith("kbitlint.")
        and isinstance(kind, type)
        and kind.__module__ == name.partition(":")[0]
        and (dataclasses.is_dataclass(kind) or issubclass(kind, enum.Enum))
    )


_CODEC = Codec(_name, _class, "a record of a rank holds a {}", (list, tuple, set, frozenset))
