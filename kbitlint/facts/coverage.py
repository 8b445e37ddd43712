"""Which share of a model's matrices its adapters reach, and which kinds of layers they leave out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Coverage:
    """The matrices of linear layers and experts that adapters reach. Embeddings and heads do not count."""

    share: float
    """Share of their elements, from 0 to 1."""
    without: tuple[str, ...]
    """The last names of layers of which none has an adapter, the largest first."""

    def __str__(self) -> str:
        """Return the coverage in words: ``7% of the linear weights have an adapter, none of q_proj, k_proj``."""
        shown = ", ".join(self.without[:_SHOWN]) + (", ..." if len(self.without) > _SHOWN else "")
        share = f"{self.share:.0%}" if self.share >= 0.01 else f"{self.share:.1%}"
        return f"{share} of the linear weights have an adapter" + (f", none of {shown}" if shown else "")


def coverage_of(facts: Any) -> Coverage | None:
    """Return the coverage of the adapters of ModelFacts. None if they reach every matrix, or work on none by design.

    PEFT wraps the module of fused experts for one of its parameters, so that the others cannot be told apart: None too.
    """
    adapted = {layer.path for layer in facts.adapted}
    if not adapted:
        return None  # most audited models have no adapters, and thousands of matrices
    if any(parameter.bank and parameter.module in adapted for parameter in facts.parameters):
        return None
    sizes: dict[str, int] = {}
    for path, numel in _matrices(facts):
        sizes[path] = sizes.get(path, 0) + numel
    reached = sum(numel for path, numel in sizes.items() if path in adapted)
    total = sum(sizes.values())
    if not reached or reached == total:
        return None
    kinds: dict[str, int] = {}
    for path, numel in sizes.items():
        kinds[_kind(path)] = kinds.get(_kind(path), 0) + numel
    touched = {_kind(path) for path in sizes if path in adapted}
    without = sorted((kind for kind in kinds if kind not in touched), key=lambda kind: -kinds[kind])
    return Coverage(reached / total, tuple(without))


def _matrices(facts: Any) -> Iterator[tuple[str, int]]:
    """Yield (path of the module, or of the parameter of fused experts; elements before packing)."""
    known: set[str] = set()
    for packed in (*facts.quantized, *facts.packed_banks):
        if packed.packing.features:
            known.add(packed.path)
            yield _own(packed.path), math.prod(packed.packing.features)
    left_out = {embedding.path for embedding in facts.embeddings} | {head.path for head in facts.heads}
    for parameter in facts.unpacked:
        path = parameter.path if parameter.bank else parameter.module
        if path not in known and _own(parameter.module) not in left_out:
            yield _own(path), parameter.numel


def _own(path: str) -> str:
    """Return the path of a layer without the name under which PEFT keeps it."""
    return path.removesuffix(".base_layer")


def _kind(path: str) -> str:
    """Return the last name of a path that is no number."""
    return next((name for name in reversed(path.split(".")) if not name.isdigit()), path)
