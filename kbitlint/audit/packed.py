"""Results as JSON that restores the same objects, and nothing but data: a file of a repository must not run code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kbitlint.audit.script_audit import ScriptAudit
from kbitlint.engine import Outcome
from kbitlint.result import Skip
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    import enum

_CLASSES: dict[str, type[Any]] = {kind.__name__: kind for kind in (Edit, Fix, Location, Outcome, ScriptAudit, Skip, Violation)}
_ENUMS: dict[str, type[enum.Enum]] = {kind.__name__: kind for kind in (Consequence, Safety, Severity, Surface)}
_PLAIN = (bool, int, float, str, type(None))


def packed(value: Any) -> Any:
    """Return a result as JSON: plain values as they are, every other one as a list that starts with its kind.

    Raises:
        TypeError: It holds an object of another type, such as a crash, which is not kept.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (list, tuple):
        return [kind.__name__, *map(packed, value)]
    if kind is frozenset:
        return ["frozenset", *map(packed, sorted(value, key=repr))]
    if isinstance(value, Mapping):
        return ["dict", *([packed(name), packed(item)] for name, item in value.items())]
    if _ENUMS.get(kind.__name__) is kind:
        return ["enum", kind.__name__, value.name]
    if _CLASSES.get(kind.__name__) is kind:
        return ["object", kind.__name__, *(packed(getattr(value, field.name)) for field in dataclasses.fields(value))]
    raise TypeError(f"{kind.__name__} is not kept")


def unpacked(value: Any) -> Any:
    """Return the result that ``packed`` has made JSON of.

    Raises:
        ValueError, TypeError, LookupError: The JSON is none of those.
    """
    if not isinstance(value, list):
        return value
    kind, *parts = value
    if kind == "enum":
        name, member = parts
        return _ENUMS[name][member]
    if kind == "object":
        name, *values = parts
        return _CLASSES[name](*map(unpacked, values))
    if kind == "dict":
        return {unpacked(name): unpacked(item) for name, item in parts}
    return {"list": list, "tuple": tuple, "frozenset": frozenset}[kind](map(unpacked, parts))
