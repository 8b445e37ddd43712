"""The memory of training steps, as data. Renderers read it; this module imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.step_plan import StepPlan

#: kinds of resident bytes, in their order in reports
KINDS = (
    "quantized weights",
    "quantization state",
    "norms",
    "embeddings and head",
    "other weights",
    "adapters",
    "buffers",
    "other models",
)
#: modes of checkpointing, in their order in reports; a third one, ``every n-th layer``, follows them
OFF, ON = "no checkpointing", "checkpointed"


def mode_of(stride: int) -> str:
    """Return the name of the mode in which every n-th layer checkpoints, 0 for none."""
    return {0: OFF, 1: ON}.get(stride) or f"every {_ordinal(stride)} layer"


def _ordinal(number: int) -> str:
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment of a training step, at its most bytes."""

    name: str
    """The module and the pass: ``model.layers.3.mlp, backward``."""
    total: int
    held: int
    """Bytes that live for the whole run."""
    activations: int
    """Bytes saved for the backward pass by the layers and the modules before them."""
    logits: int
    """Bytes saved for the backward pass by the head and the loss."""
    gradients: int
    beside: int
    """Bytes that a rank gathers beside what its step on one card holds; negative if it holds less."""

    @property
    def temporary(self) -> int:
        """Return the bytes of all other tensors: recomputed layers, unpacked weights, products."""
        return self.total - self.held - self.activations - self.logits - self.gradients - self.beside


@dataclass(frozen=True, slots=True)
class StepMemory:
    """The memory of one training step in one mode of checkpointing."""

    activations: int
    """Bytes saved for the backward pass by the layers and the modules before them."""
    logits: int
    """Bytes saved for the backward pass by the head and the loss."""
    peak: int
    """Peak bytes of a step after the first, including weights and optimizer state."""
    peak_at: str
    """The module and the pass at the peak: ``lm_head, backward``."""
    timeline: tuple[Moment, ...] = ()
    """The moments of the step in their order. Of layers that are alike, the first and the last are there."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run beside its training steps."""

    name: str
    """``loading``, ``evaluation``, ``generation``, ``saving`` or ``merging``."""
    words: str
    """Its settings."""
    peak: int | None
    """The most bytes on the card; None if it cannot be measured."""
    peak_at: str = ""
    """The moment of the peak."""
    host: int = 0
    """The most bytes that it holds in the memory of the host."""
    failure: str = ""
    """Why it cannot be measured; empty if it can."""

    @property
    def label(self) -> str:
        """Return its name in a table: a model is merged in two ways."""
        return "merging, 16 bits" if "16 bits" in self.words else self.name


@dataclass(frozen=True, slots=True)
class StateMemory:
    """The memory of one state of the model: unchanged, or prepared in one way."""

    name: str
    resident: Mapping[str, int]
    """Bytes by kind; the kinds are those of ``KINDS``."""
    gradients: int
    """Bytes of all gradients."""
    optimizer: int
    """Bytes of the optimizer's state."""
    steps: Mapping[str, StepMemory]
    """The step's memory by mode of checkpointing. A mode that the class does not support is absent."""
    failure: str | None = None
    """Why the step could not run; None if it ran."""
    host: int = 0
    """Bytes of the optimizer's state, and of offloaded weights, that lie in the memory of the host."""
    buckets: int = 0
    """Bytes of DDP's gradient buckets."""
    phases: tuple[Phase, ...] = ()
    """The parts of the run beside its steps, in the order of a run."""


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """The memory of training for several states of one model."""

    target: str
    summary: str
    batch: tuple[int, int]
    """(sequences, tokens per sequence)."""
    plan: StepPlan
    """The optimizer and the other settings of the step."""
    autocast: str | None
    """The dtype of autocast; None without autocast."""
    states: tuple[StateMemory, ...]
    notes: tuple[str, ...] = ()
    launch: str = ""
    """How the run is spread over cards, in words: ``one of 2 ranks, fsdp2``. Empty for one card."""
    own_batch: bool = False
    """Whether the batch is the caller's own."""
