"""Dataclasses and enums as JSON, and back. Reading JSON of unknown origin runs no code."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from kbitlint.lazy_dataclass import dataclass

_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True)
class Codec:
    """The classes that records may hold, by name, and their form as JSON."""

    name_of: Callable[[type], str | None]
    """Returns the name of a dataclass or enum; None for a class that no record holds."""
    kind_of: Callable[[str], Any]
    """Returns the class of a name. It raises LookupError, ImportError or AttributeError for another name."""
    refusal: str
    """The message for an object of another class, with ``{}`` for its name."""
    collections: tuple[type, ...] = (list, tuple, frozenset)

    def packed(self, value: Any) -> Any:
        """Return a value as JSON: plain values as they are, every other one as a list that starts with its kind.

        Raises:
            TypeError: It holds an object of a class that no record holds.
        """
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind in self.collections:
            ordered = sorted(value, key=repr) if kind in (set, frozenset) else value
            return [kind.__name__, *map(self.packed, ordered)]
        if isinstance(value, Mapping):
            return ["dict", *([self.packed(name), self.packed(item)] for name, item in value.items())]
        name = self.name_of(kind)
        if name is None:
            raise TypeError(self.refusal.format(f"{kind.__module__}:{kind.__qualname__}"))
        if isinstance(value, enum.Enum):
            return ["enum", name, value.name]
        return ["object", name, {field.name: self.packed(getattr(value, field.name)) for field in dataclasses.fields(value)}]

    def unpacked(self, value: Any) -> Any:
        """Return the value whose JSON ``packed`` has returned.

        Raises:
            ValueError, TypeError, LookupError, AttributeError, ImportError: The JSON has another form.
        """
        if not isinstance(value, list):
            return value
        kind, *parts = value
        if kind == "dict":
            return {self.unpacked(name): self.unpacked(item) for name, item in parts}
        if kind == "enum":
            name, member = parts
            return self.kind_of(name)[member]
        if kind == "object":
            name, fields = parts  # in damaged JSON, fields may be no list of pairs: dict() raises
            return self.kind_of(name)(**{field: self.unpacked(item) for field, item in dict(fields).items()})
        return {made.__name__: made for made in self.collections}[kind](map(self.unpacked, parts))
