"""The records of ranks as JSON: what another process writes to the store is data, and runs no code."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
from collections.abc import Mapping
from typing import Any

_PLAIN = (bool, int, float, str, type(None))
_MANY: dict[str, Any] = {kind.__name__: kind for kind in (list, tuple, set, frozenset)}


def dumps(record: Any) -> bytes:
    """Return a record of frozen dataclasses, enums and plain values as JSON.

    Raises:
        TypeError: It holds an object of another type.
    """
    return json.dumps(_packed(record), separators=(",", ":")).encode()


def loads(data: bytes) -> Any:
    """Return the record that ``dumps`` has made JSON of.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, ImportError: The data are none.
    """
    return _unpacked(json.loads(data))


def _packed(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if _MANY.get(kind.__name__) is kind:
        return [kind.__name__, *map(_packed, value)]
    if isinstance(value, Mapping):
        return ["dict", *([_packed(name), _packed(item)] for name, item in value.items())]
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _is_known(name, kind):
        if isinstance(value, enum.Enum):
            return ["enum", name, value.name]
        return ["object", name, {field.name: _packed(getattr(value, field.name)) for field in dataclasses.fields(value)}]
    raise TypeError(f"a record of a rank holds a {name}")


def _unpacked(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, *parts = value
    if kind == "dict":
        return {_unpacked(name): _unpacked(item) for name, item in parts}
    if kind in _MANY:
        return _MANY[kind](map(_unpacked, parts))
    name, content = parts
    found = _class(name)
    if kind == "enum":
        return found[content]
    return found(**{field: _unpacked(item) for field, item in content.items()})


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
