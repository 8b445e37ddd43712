"""Modules whose forward computes with the weight of a child instead of calling the child."""

from __future__ import annotations

import dis
import functools
from typing import TYPE_CHECKING, Any

from kbitlint.model.layers.norms import function_of, loaded

if TYPE_CHECKING:
    from torch import nn

#: Attributes of a weight that are read without computing with it.
_PROPERTIES = frozenset(["dtype", "device", "shape", "size", "ndim", "dim", "is_meta", "requires_grad", "numel", "data_ptr"])


def reader_of(parent: nn.Module | None, name: str) -> str:
    """Return the class of a parent whose forward computes with ``<name>.weight`` itself; empty if it does not.

    Adapters on such a child take no part in the forward pass. A forward that was replaced on the object counts.
    """
    if parent is None:
        return ""
    forward = parent.__dict__.get("forward", type(parent).forward)
    forward = function_of(getattr(forward, "__func__", forward))
    return type(parent).__name__ if name in _weights_read(forward) else ""


@functools.lru_cache(maxsize=4096)
def _weights_read(forward: Any) -> frozenset[str]:
    """Return the names whose ``.weight`` a function loads for more than a property of it."""
    code = getattr(forward, "__code__", None)
    if code is None:
        return frozenset()
    names = [loaded(instruction) for instruction in dis.get_instructions(code)]
    return frozenset(
        first
        for first, second, third in zip(names, names[1:], [*names[2:], None], strict=False)
        if first is not None and second == "weight" and third not in _PROPERTIES
    )
