"""Facts of a merged checkpoint, compared with its base and its adapter."""

from __future__ import annotations

import enum

from kbitlint.lazy_dataclass import dataclass


class Verdict(enum.Enum):
    """The state of one adapted weight of a merged checkpoint."""

    MERGED = "base plus adapter"
    ABSENT = "the base without the adapter"
    TWICE = "base plus twice the adapter"
    ROUNDED = "base plus adapter, with the rounding of a packed base"
    OTHER = "something else"
    TOO_SMALL = "equal within rounding: the adapter is too small to be seen"
    UNKNOWN = "not compared"


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """One adapted weight."""

    name: str
    verdict: Verdict
    share: float | None = None
    """The share of the adapter in it, from 0 to 1; None if unknown."""
    residual: float = 0.0
    """The difference to base plus adapter, relative to the base."""
    on_grid: bool = False
    """Whether its values are those of 4-bit packing: it was packed and unpacked after the merge."""


@dataclass(frozen=True, slots=True)
class MergeComparison:
    """A merged checkpoint against its base and its adapter."""

    missing: tuple[str, ...]
    """Tensors of the base that it lacks."""
    reshaped: tuple[str, ...]
    """Tensors whose shape differs from that in the base."""
    packed: bool
    """Whether it is packed itself, or its config still says that it is."""
    layers: tuple[LayerComparison, ...]
    changed: tuple[str, ...]
    """Weights without an adapter whose values are not those of the base."""

    def of(self, verdict: Verdict) -> tuple[LayerComparison, ...]:
        """Return the weights with one verdict."""
        return tuple(layer for layer in self.layers if layer.verdict is verdict)
