"""The plan of a batch: how it differs from the batch that a class's documentation gives at first."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.model.inputs.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes of a batch. Corrections add to them."""

    given: frozenset[str] = frozenset()
    """Optional arguments that the batch passes as well."""
    without: frozenset[str] = frozenset()
    """Arguments that the batch leaves out."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The shape of each argument that does not have its documented one."""
    dimensions: Mapping[str, int] = field(default_factory=dict)
    """Values of documented dimensions, such as ``image_size``."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """``float`` or ``long`` for each argument that does not have its documented dtype, and how one with entries is read."""
    placeholders: Mapping[int, int] = field(default_factory=dict)
    """Token -> how many of it stand before the text of each sample, as code counts them."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many inputs an argument holds that takes several, such as ``*inputs``."""
    method: str = "forward"
    """The method that a training step calls: ``training_step`` of Lightning's modules computes the loss itself."""
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """The form of each argument that no documentation describes, as the forward has used it."""
    seq_len: int | None = None
    """Tokens in each sequence, or None for the caller's number."""

    def changed(self, **changes: Any) -> Plan:
        """Return a plan with further changes. Mappings and sets are merged."""
        merged: dict[str, Any] = {
            name: value if name in ("seq_len", "method") else getattr(self, name) | value for name, value in changes.items()
        }
        return dataclasses.replace(self, **merged)


#: The batch as the class documents it.
DOCUMENTED = Plan()
