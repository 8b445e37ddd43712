"""Facts of the first steps of a real run: which parameters received a gradient, and which changed."""

from __future__ import annotations

import dataclasses
from typing import Any

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class FirstStepsFacts:
    """The effect of the first optimizer steps on the parameters of one rank. Paths are those of reports."""

    steps: int
    """Steps that the optimizer made."""
    skipped: int
    """Steps that the gradient scaler skipped, because a gradient was not finite."""
    trainable: int
    """Number of trainable parameters that could be read."""
    frozen: int
    """Number of frozen parameters that could be read."""
    without_gradient: tuple[str, ...] = ()
    """Trainable parameters whose gradient was missing or zero in each step."""
    unchanged: tuple[str, ...] = ()
    """Trainable parameters that received a gradient and have kept every bit."""
    nonfinite_gradients: tuple[str, ...] = ()
    """Trainable parameters whose gradient had a NaN or an infinity in a step that was made."""
    nonfinite_values: tuple[str, ...] = ()
    """Trainable parameters that now have a NaN or an infinity, and had none."""
    changed_frozen: tuple[str, ...] = ()
    """Frozen parameters that have other bits than before."""
    gradients_read: bool = True
    """Whether any gradient could be read. DeepSpeed keeps them in buffers of its own."""
    moved_at_rate: bool = True
    """Whether the learning rate was above 0 in any step; True if it is not known."""
    batch: tuple[int, int] | None = None
    """(sequences, tokens) of the largest batch; None if it was not looked for."""
    peak: int | None = None
    """Peak bytes allocated on the CUDA device; None without one, or if an earlier peak was higher."""
    promised: int | None = None
    """Peak bytes that ``kbitlint memory`` computes for that batch; None if it was not measured."""

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        return dataclasses.asdict(self)
