"""Facts of one training step without weights. Rules on the trace read these.

They contain no tensor and no module. ``kbitlint.model.trace.trace`` collects them.
"""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.facts.model import ModelFacts


class Cut(enum.Enum):
    """Why no gradient reaches a parameter. Each value completes the sentence "the module ..."."""

    NOT_CALLED = "is not called in the forward pass"
    """The parameter's module, or a module around it, does not run on this batch."""
    NOT_USED = "runs without using it"
    NO_GRAD = "runs without recording gradients"
    """The module runs under ``torch.no_grad`` or ``torch.inference_mode``."""
    REENTRANT = "is checkpointed reentrantly, and nothing that enters it requires grad"
    CUT = "gives an output that does not require grad"
    DETACHED = "detaches what depends on it"
    NOT_IN_LOSS = "gives an output that the loss does not depend on"


@dataclass(frozen=True, slots=True)
class GradientFacts:
    """One trainable parameter, or the place of one future adapter, after the backward pass."""

    path: str
    arrives: bool
    """Whether a gradient reaches the parameter."""
    adapter: bool
    """Whether the parameter belongs to an adapter."""
    virtual: bool = False
    """Whether this is the place of an adapter that is not attached yet. ``path`` is then that of the quantized layer."""
    cut: Cut | None = None
    """Why no gradient arrives; None if one does."""
    at: str = ""
    """The module that ``cut`` describes."""
    inherent: bool = False
    """Whether the module's class itself cuts the gradient.

    If True, the cut remains on a copy without the hooks, checkpointing and replaced ``forward`` methods of this
    model.
    """

    zeroed_by: str = ""
    """What makes the gradient zero in every step: a frozen tensor, or the module of ``zeroing``; empty if nothing does."""
    zeroing: str = ""
    """The operator in that module: ``mul`` by the number 0, or one without a slope, as ``round``; empty for a tensor."""

    @property
    def runs(self) -> bool:
        """Return whether the forward pass uses the parameter."""
        return self.cut not in (Cut.NOT_CALLED, Cut.NOT_USED)

    @property
    def reentrant(self) -> bool:
        """Return whether a reentrant checkpoint cuts the gradient."""
        return self.cut is Cut.REENTRANT


@dataclass(frozen=True, slots=True)
class RefusalFacts:
    """A kernel that rejects the dtypes of its operands. Training raises at this point."""

    path: str
    """The module that calls the kernel."""
    operator: str
    dtypes: tuple[str, ...]
    """The dtypes of the operands: input, weight, bias."""
    in_backward: bool


@dataclass(frozen=True, slots=True)
class PackedReadFacts:
    """Code that computes with a packed weight as if it were unpacked. Training raises, or the results are meaningless."""

    path: str
    """The quantized layer."""
    reader: str
    """The module whose code reads the weight."""
    operator: str
    cast: bool = False
    """Whether the step runs to its end, since the code casts the packed values. The results are wrong then."""


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer of a stack, with the dtype of the residual stream at its input and output."""

    path: str
    incoming: str
    outgoing: str


@dataclass(frozen=True, slots=True)
class PromotionFacts:
    """A module with parameters of its own that turns half-precision input into float32 output."""

    path: str
    class_name: str
    incoming: str
    outgoing: str


@dataclass(frozen=True, slots=True)
class ReplacedLayerFacts:
    """A layer in a list of a module, called in the step although quantization has replaced it."""

    place: str
    """The list and the index: ``mask_embedder.0.layers[0]``."""
    path: str
    """The module that holds the list."""
    layer: str
    """The name in that module of a quantized layer of the same features."""
    meta: bool
    """Whether the layer has no weights."""


@dataclass(frozen=True, slots=True)
class CheckpointCall:
    """One call of ``torch.utils.checkpoint.checkpoint`` in the forward pass."""

    path: str
    """The module that makes the call."""
    use_reentrant: bool | None
    """None if the argument is not passed. torch then checkpoints reentrantly."""
    requires_grad: bool
    """Whether any tensor argument requires grad. If none does, a reentrant checkpoint cuts the gradient."""

    @property
    def cuts(self) -> bool:
        """Return whether the checkpoint cuts the gradient."""
        return self.use_reentrant is not False and not self.requires_grad


@dataclass(frozen=True, slots=True)
class SavedFacts:
    """Bytes that one module saves for the backward pass, without its submodules."""

    path: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """The facts of one forward and backward pass without weights."""

    model: ModelFacts
    """The facts of the same model."""
    device: str
    """The device whose kernels are imitated: ``cpu`` or ``cuda``."""
    autocast: str | None
    """The autocast dtype of the context. If it is None (not known) or ``float32``, the step runs without autocast."""
    batch: tuple[int, int]
    """(sequences, tokens per sequence)."""
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
    """(kind, count) of the values that the step read although they are unknown without weights."""
    failure: str | None = None
    """The error that stopped the step and would stop training too; None if the step ran to its end."""
    failed_at: str = ""
    """The module that ran when the step stopped; empty if it did not stop."""
    absorbed: bool = False
    """Whether the step runs under bfloat16 autocast.

    Determined only if a kernel refused its dtypes and the context does not settle whether the training loop uses
    autocast.
    """
    grown: tuple[str, ...] = ()
    """Parameters that have more parametrizations after the step than before."""
    float32_modules: tuple[str, ...] = ()
    """Modules that let the step run if they compute in float32.

    Empty if no kernel refuses its dtypes, or if float32 modules do not help.
    """
    float32_outputs: tuple[str, ...] = ()
    """Heads that let the step run if they return float32. Empty unless a kernel refuses its dtypes outside of all modules."""
    replaced: tuple[ReplacedLayerFacts, ...] = ()
    """Layers that the step called although quantization has replaced them."""
    recast: tuple[tuple[str, str, str], ...] = ()
    """(path, dtype before, dtype after) of each trainable parameter to which the step gives another dtype."""
    unregistered: tuple[str, ...] = ()
    """Tensors that are no parameters of the model, and at which a gradient arrives."""
    written: tuple[str, ...] = ()
    """Buffers of the base that the step writes and that no adapter saves. Empty if the model has no adapters."""
    cutting: tuple[str, ...] = ()
    """Layers whose input requires grad, and whose weight is packed for a kernel without gradients."""
    undefined_loss: bool = False
    """Whether the loss is the mean of no elements, which is NaN."""
    seconds: float = field(default=0.0, compare=False)
    """Duration of the tracing in seconds."""

    @property
    def saves_inference_tensor(self) -> bool:
        """Return whether the step stops because its backward pass needs a tensor created under inference mode."""
        return "Inference tensors cannot be saved" in (self.failure or "")

    @property
    def raises(self) -> bool:
        """Return whether autograd stops the step for a reason that no other fact explains."""
        told = self.refusals or self.packed_reads or "does not require grad" in (self.failure or "")
        return self.failure is not None and not (told or self.saves_inference_tensor)

    @property
    def saved_bytes(self) -> int:
        """Return the bytes that are saved for the backward pass, without parameters and buffers."""
        return sum(facts.nbytes for facts in self.saved)
