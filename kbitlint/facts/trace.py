"""What one training step without weights showed, as data: rules on the trace read this.

Like the facts of the walk, these hold no tensor and no module; ``kbitlint.model.trace.trace`` collects them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbitlint.facts.model import ModelFacts


class Cut(enum.Enum):
    """Why no gradient arrives at a parameter."""

    NOT_CALLED = "is not called in the forward pass"
    """The module that holds it, or one around that, does not run on this batch."""
    NOT_USED = "runs without using it"
    NO_GRAD = "runs without recording gradients"
    """It runs under ``torch.no_grad`` or ``torch.inference_mode``."""
    REENTRANT = "is checkpointed reentrantly, and nothing that enters it requires grad"
    CUT = "gives an output that does not require grad"
    DETACHED = "detaches what depends on it"
    NOT_IN_LOSS = "gives an output that the loss does not depend on"


@dataclass(frozen=True, slots=True)
class GradientFacts:
    """One trainable parameter, or one place where an adapter would be, after the backward pass."""

    path: str
    arrives: bool
    adapter: bool
    """Whether it belongs to an adapter."""
    virtual: bool = False
    """Whether it stands for an adapter that is not attached yet; the path is that of the quantized layer."""
    cut: Cut | None = None
    """Why nothing arrives; None where it does."""
    at: str = ""
    """The module that ``cut`` speaks of."""
    inherent: bool = False
    """Whether the class cuts it by itself, also without the hooks, flags and functions that this model carries."""

    @property
    def runs(self) -> bool:
        """Whether the parameter is computed with at all."""
        return self.cut not in (Cut.NOT_CALLED, Cut.NOT_USED)

    @property
    def reentrant(self) -> bool:
        """Whether a reentrant checkpoint cuts it off."""
        return self.cut is Cut.REENTRANT


@dataclass(frozen=True, slots=True)
class RefusalFacts:
    """A kernel that refuses the dtypes it is given: training raises here."""

    path: str
    """The module that runs it."""
    operator: str
    dtypes: tuple[str, ...]
    """As its operands come: input, weight, bias."""
    in_backward: bool


@dataclass(frozen=True, slots=True)
class PackedReadFacts:
    """Code that computes with a packed weight as if it were the weight: training raises, or computes nonsense."""

    path: str
    """The quantized layer."""
    reader: str
    """The module whose code reads it."""
    operator: str


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer of a stack: in which dtype the residual stream enters and leaves it."""

    path: str
    incoming: str
    outgoing: str


@dataclass(frozen=True, slots=True)
class PromotionFacts:
    """A module with parameters of its own that takes half precision and gives float32."""

    path: str
    class_name: str
    incoming: str
    outgoing: str


@dataclass(frozen=True, slots=True)
class CheckpointCall:
    """One call of ``torch.utils.checkpoint.checkpoint`` in the forward pass."""

    path: str
    """The module that makes it."""
    use_reentrant: bool | None
    """None where nothing is passed and torch decides (reentrant)."""
    requires_grad: bool
    """Whether a tensor that is passed requires grad: a reentrant checkpoint is cut off where none does."""

    @property
    def cuts(self) -> bool:
        """Whether no gradient passes."""
        return self.use_reentrant is not False and not self.requires_grad


@dataclass(frozen=True, slots=True)
class SavedFacts:
    """Bytes that one module keeps for the backward pass, without those of the modules in it."""

    path: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """One forward and backward without weights."""

    model: ModelFacts
    """What the walk saw on the same model."""
    device: str
    """Whose kernels were stood in for: ``cpu`` or ``cuda``."""
    autocast: str | None
    batch: tuple[int, int]
    """(sequences, tokens a sequence)."""
    gradients: tuple[GradientFacts, ...]
    refusals: tuple[RefusalFacts, ...]
    packed_reads: tuple[PackedReadFacts, ...]
    layers: tuple[LayerFacts, ...]
    promotions: tuple[PromotionFacts, ...]
    checkpoint_calls: tuple[CheckpointCall, ...]
    saved: tuple[SavedFacts, ...]
    called: frozenset[str]
    """Paths of the modules that ran."""
    guesses: tuple[tuple[str, int], ...]
    """Values that were read although nothing could know them, by kind, with how often."""
    failure: str | None = None
    """What stopped the step and what training would raise too; None where it ran to its end."""
    failed_at: str = ""
    """The module that ran then."""
    absorbed: bool = False
    """Whether the step runs under bfloat16 autocast, where it is not known whether the loop opens it."""
    grown: tuple[str, ...] = ()
    """Parameters that have more parametrizations after the step than before."""
    float32_modules: tuple[str, ...] = ()
    """Modules that let the step run where they compute in float32; empty where nothing refuses or that is no help."""
    seconds: float = field(default=0.0, compare=False)

    @property
    def saves_inference_tensor(self) -> bool:
        """Whether the step stops because its backward pass needs a tensor that was created under inference mode."""
        return "Inference tensors cannot be saved" in (self.failure or "")

    @property
    def raises(self) -> bool:
        """Whether autograd itself stops the step, for a reason that no other fact tells."""
        told = self.refusals or self.packed_reads or "does not require grad" in (self.failure or "")
        return self.failure is not None and not (told or self.saves_inference_tensor)

    @property
    def saved_bytes(self) -> int:
        """Bytes kept for the backward pass, parameters and buffers aside."""
        return sum(facts.nbytes for facts in self.saved)
