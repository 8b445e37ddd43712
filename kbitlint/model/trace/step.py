"""One training step on a twin: its settings, its run and its end. The recorder is in ``kbitlint.model.trace.recorder``."""

from __future__ import annotations

import re
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from kbitlint.errors import KbitlintError, one_line
from kbitlint.facts.trace import CheckpointCall
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.batch import called, loss_of, training_batch
from kbitlint.model.inputs.entries import changed
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.layers import adapters
from kbitlint.model.trace.checkpoint_calls import observed
from kbitlint.model.trace.dtype_errors import dtypes_in, is_about_dtypes, raised_by
from kbitlint.model.trace.function_mode import weightless
from kbitlint.model.trace.guard import Guard
from kbitlint.model.trace.ledger import Refusal
from kbitlint.model.trace.loop import autocast, backward, enable_checkpointing
from kbitlint.model.trace.namespaces import without_leftovers
from kbitlint.model.trace.packed_operands import note_packed_operands
from kbitlint.model.trace.recorder import ExpectedGradient, StepRecorder, prepared, watched_in
from kbitlint.model.trace.stubs import KernelError
from kbitlint.model.trace.twin import originals_of, stand_in_quantized
from kbitlint.model.trace.zeros import storage_key

if TYPE_CHECKING:
    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.model.trace.trainer_loss import TrainerLoss

#: Messages of autograd itself, which it raises for real tensors as well as for tensors without contents.
_AUTOGRADS_OWN = re.compile(
    r"leaf Variable that requires grad|modified by an inplace operation|does not require grad"
    r"|Recomputed values|different number of tensors was saved|Inference tensors cannot be saved"
)
#: What torch's checkpoint says of a layer that it recomputes to other tensors.
_RECOMPUTED = "Recomputed values"
#: The dtype of ids and labels. No weight has it, so a message that names it speaks of the batch.
LONG = re.compile(r"long int|\bLong\b|int64|LongTensor|dtype can require gradients")


class UntraceableError(KbitlintError):
    """A step that cannot run without weights. The message names the operator and the module."""

    module: str = ""
    """The path of the module that raised; empty if none is known."""
    refusals: bool = False
    """Whether kernels refused dtypes before the step raised."""
    guessed: bool = False
    """Whether the step read values that are unknown without weights."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """The settings of one step."""

    context: TrainingContext
    device: str
    """The device whose kernels are simulated: ``cpu`` or ``cuda``."""
    batch: int
    """Sequences in the batch."""
    seq_len: int
    """Tokens in each sequence."""
    facts: ModelFacts
    virtual: bool
    """Whether each quantized layer holds a trainable scalar in place of an adapter that is not attached yet."""
    plan: Plan = DOCUMENTED
    """How the batch differs from the documented one."""
    refusal_ends: bool = False
    """Whether a refused dtype ends the step, so that no later error counts."""
    keeps_outputs: bool = False
    """Whether the loop holds the model's outputs during the backward pass."""
    starts: frozenset[str] | None = None
    """The trainable parameters that count as zero. None are all that hold zeros when the step starts."""
    loss: TrainerLoss | None = None
    """The loss of a Trainer, on its own batch. None is the model's own loss, on the made batch."""


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended."""

    failure: str | None = None
    """The error in one line, or None if the step finished."""
    module: str = ""
    """The path of the module that raised. It is empty if none did, or if the model itself did."""
    has_graph: bool = True
    """Whether the forward pass finished, so that the gradients can be judged."""


class AllocationObserver(Protocol):
    """An observer of the tensors that a step allocates."""

    def own(self, tensor: Tensor) -> None:
        """Receive a tensor of the model itself, before the step starts."""

    def see(self, tensor: Tensor) -> None:
        """Receive a tensor that an operator returned. It may share the storage of an earlier tensor."""

    def keep(self, tensor: Tensor, where: str) -> None:
        """Receive a tensor that the module at a path saved for the backward pass. Each storage comes once."""

    def name(self, moment: str) -> None:
        """Receive the module and pass that run from now on, such as ``model.layers.3.mlp, forward``."""


def step_of(
    twin: nn.Module, how: StepSettings, live: AllocationObserver | None = None
) -> tuple[StepRecorder, list[ExpectedGradient], StepEnd]:
    """Run one step on a twin. The twin cannot be used again.

    Args:
        twin: The copy of the model.
        how: The settings of the step.
        live: An observer of allocations. None observes nothing.

    Returns:
        The record of the step, the parameters at which a gradient is expected, and how the step ended.

    Raises:
        UntraceableError: The step needs values or kernels that do not exist without weights. Or it reaches the original model,
            or calls no module that holds a parameter.
    """
    if how.virtual:
        twin.requires_grad_(requires_grad=False)
    stood_in = stand_in_quantized(twin, how.device, adapters=how.virtual)
    step = prepared(twin, how.device, how.facts, how.starts)
    if live is not None:
        step.ledger.allocated, step.moment, step.kept = live.see, live.name, live.keep
        gradients = (parameter.grad for parameter in twin.parameters() if parameter.grad is not None)
        for tensor in (*twin.parameters(), *twin.buffers(), *gradients):
            live.own(tensor)
    step.ledger.packed = {storage_key(weight): step.paths[id(module)] for module, weight in stood_in.packed}
    step.ledger.packed_dtypes = frozenset(weight.dtype for _, weight in stood_in.packed)
    step.ledger.guard = Guard({original: path for path, module in step.modules.items() for original in originals_of(module)})
    watched = watched_in(step, how.facts, stood_in.adapters)
    with step.ledger.guard.watching(), without_leftovers(twin):
        end = _run(step, how)
    _refuse_strangers(step, end)
    return step, watched, end


def _refuse_strangers(step: StepRecorder, end: StepEnd) -> None:
    """Raise UntraceableError if the step reached the original, or ran no module of the twin that holds a parameter.

    Such a step proves nothing about the model.
    """
    guard = step.ledger.guard
    if guard is not None and guard.touched:
        raise UntraceableError(f"no training step without weights: {guard.touched}")
    holders = [path for path, module in step.modules.items() if module._parameters]  # noqa: SLF001  # parameters of the module alone, without those of its children
    if end.failure is None and holders and not any(path in step.passage.gives_grad for path in holders):
        raise UntraceableError("no training step without weights: it calls no module of the model that holds a parameter")


def runnable(model: nn.Module) -> nn.Module:
    """Return the module that the training loop calls, without the wrappers of ``torch.compile``, DDP and DeepSpeed.

    The wrappers change nothing about the step of a single rank.
    """
    while True:
        inner = adapters.seen_through(model)
        wrapped = inner._modules.get("module") if type(inner).__name__ in _WRAPPERS else None  # noqa: SLF001  # torch has no public access by name to direct children
        if wrapped is None:
            return inner
        model = wrapped


_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine")


def _run(step: StepRecorder, how: StepSettings) -> StepEnd:
    """Run forward and backward, and return how the step ended."""
    loop = how.context.gradient_checkpointing
    if how.context.sets_training_mode is not False:
        step.twin.train()
    forward_done = False
    try:
        if loop is not None and loop.enabled:
            enable_checkpointing(step.twin, loop)
        inputs = {} if how.loss else without_contents(training_batch(step.twin, "cpu", how.batch, how.seq_len, how.plan))
        with (
            observed(step.twin, lambda *seen: _see_checkpoint(step, *seen)),
            weightless(step.ledger),
            autocast(how.device, how.context.autocast_dtype),
        ):
            with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _pack(step, tensor), _unpack):
                output = how.loss.of(step.twin) if how.loss else called(step.twin, inputs)
                loss = output if how.loss else loss_of(output)
            forward_done, step.ledger.undefined_loss = True, step.ledger.zeros.is_undefined(loss)
            if not how.keeps_outputs:
                del output
            step.ledger.in_backward = True
            step.tell()
            backward(loss)
    except Exception as error:
        where, text, ledger = _module_of(error, step.paths), str(error), step.ledger
        if ledger.guard is not None and ledger.guard.touched:
            return StepEnd(one_line(error), where, forward_done)
        if how.refusal_ends and ledger.refusals:
            return StepEnd(one_line(error), where, forward_done)
        packed = note_packed_operands(step, error, where)
        of_batch = LONG.search(text) is not None and not ledger.in_backward  # a batch that fits once fits a recomputation
        recomputes = _RECOMPUTED in text  # torch compares whole descriptions of tensors, with their dtypes
        if is_about_dtypes(error) and not (of_batch or recomputes):
            refusal = Refusal(where, raised_by(error, ledger), dtypes_in(text), ledger.in_backward)
            ledger.refusals.setdefault((where, refusal.operator), refusal)
        elif not (_AUTOGRADS_OWN.search(text) or packed or ledger.packed_reads or isinstance(error, KernelError)):
            # the shapes or values of the synthetic batch, or guessed values, may have caused the error
            place = f" in {where}" if where else ""
            operator = f"{ledger.last_operator}{place} raised " if ledger.last_operator else ""
            untraceable = UntraceableError(f"no training step without weights: {operator}{one_line(error)}")
            untraceable.module, untraceable.refusals, untraceable.guessed = where, bool(ledger.refusals), bool(ledger.guesses)
            raise untraceable from error
        return StepEnd(one_line(error), where, forward_done)
    return StepEnd()


def without_contents(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs with floating-point tensors on meta. Wav2vec2 makes its input a leaf, at which a gradient arrives."""
    return changed(inputs, lambda tensor: tensor.to("meta") if tensor.is_floating_point() else tensor)  # type: ignore[no-any-return]  # a dictionary, as given


def _see_checkpoint(step: StepRecorder, module: nn.Module | None, use_reentrant: bool | None, requires_grad: bool) -> None:  # noqa: FBT001  # the signature that observed() calls
    if not step.ledger.in_backward:
        path = step.where() if module is None else step.paths[id(module)]
        step.passage.checkpoint_calls.append(CheckpointCall(path, use_reentrant, requires_grad))


def _pack(step: StepRecorder, tensor: Tensor) -> tuple[Tensor, int]:
    """Count the bytes of a tensor that is saved for the backward pass. Each storage counts once."""
    held = tensor if tensor.layout is torch.strided else torch.empty(0, device="meta")  # a sparse one holds next to nothing
    storage = held.untyped_storage()
    key = storage._cdata  # noqa: SLF001  # the only identity of a storage
    if key not in step.counted:
        step.counted[key] = weakref.ref(storage, lambda _: step.counted.pop(key, None))  # a later storage may reuse the address
        place = step.where()
        step.saved[place] = step.saved.get(place, 0) + storage.nbytes()
        if step.kept is not None:
            step.kept(held, place)
    return tensor, tensor._version  # noqa: SLF001  # autograd compares this number as well


def _unpack(packed: tuple[Tensor, int]) -> Tensor:
    """Return a saved tensor. Raise RuntimeError if it was changed in place since.

    Saved-tensor hooks turn off autograd's own check of the version.
    """
    tensor, version = packed
    if tensor._version != version:  # noqa: SLF001  # see _pack
        raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation")
    return tensor


def _module_of(error: BaseException, paths: dict[int, str]) -> str:
    """Return the path of the module whose code raised.

    It is the ``self`` of the innermost frame that belongs to a module of the twin. The path is empty if there is none.
    """
    found, frames = "", error.__traceback__
    while frames is not None:
        owner = frames.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            found = paths[id(owner)]
        frames = frames.tb_next
    return found
