"""How a merged checkpoint differs from its base and its adapter."""

from __future__ import annotations

import enum

from kbitlint.lazy_dataclass import dataclass


class Verdict(enum.Enum):
    """What one adapted weight of a merged checkpoint is."""

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
    """How much of the adapter is in it, from 0 to 1; None if that is not known."""
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
    """Tensors whose shape is another one."""
    packed: bool
    """Whether it is packed itself, or still says so."""
    layers: tuple[LayerComparison, ...]
    changed: tuple[str, ...]
    """Weights without an adapter whose values are not those of the base."""

    def of(self, verdict: Verdict) -> tuple[LayerComparison, ...]:
        """Return the weights with one verdict."""
        return tuple(layer for layer in self.layers if layer.verdict is verdict)
