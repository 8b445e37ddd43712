"""What training a model takes in bytes, as data; ``kbitlint.model.memory`` measures it, reporters show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: kinds of resident bytes, in the order in which they are shown
KINDS = ("quantized weights", "quantization state", "norms", "embeddings and head", "other weights", "adapters", "buffers")
#: how layers may checkpoint, in the order in which they are shown; the last one's n is the caller's
OFF, ON = "no checkpointing", "checkpointed"


@dataclass(frozen=True, slots=True)
class StepMemory:
    """One training step in one mode of checkpointing."""

    activations: int
    """Bytes kept for the backward pass by the layers and what feeds them."""
    logits: int
    """Bytes kept for the backward pass by the head and the loss."""
    peak: int
    """The most that is held at any moment of a step after the first, weights and optimizer state included."""
    peak_at: str
    """The module that runs then, with the pass: ``lm_head, backward``."""


@dataclass(frozen=True, slots=True)
class StateMemory:
    """One state of the model: as it is, or prepared in one way or another."""

    name: str
    resident: Mapping[str, int]
    """Bytes of each kind of ``KINDS``."""
    gradients: int
    optimizer: int
    steps: Mapping[str, StepMemory]
    """By mode of checkpointing; a mode that the class does not support is absent."""
    failure: str | None = None
    """Why the step could not be run; None where it ran."""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What training takes, side by side for several states of one model."""

    target: str
    summary: str
    batch: tuple[int, int]
    """(sequences, tokens a sequence)."""
    optimizer: str
    autocast: str | None
    states: tuple[StateMemory, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The report as people read it."""
        from kbitlint.output.memory import render_text

        return render_text(self)
