"""Runs one training step on a twin, and gathers what it shows: what runs, what is kept, what is refused, how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from kbitlint.errors import KbitlintError, one_line
from kbitlint.facts.trace import CheckpointCall
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.isolation import seeded
from kbitlint.model.layers import adapters, checkpointing
from kbitlint.model.trace.checkpoint_calls import observed
from kbitlint.model.trace.function_mode import weightless
from kbitlint.model.trace.guard import Guard
from kbitlint.model.trace.ledger import Refusal
from kbitlint.model.trace.recorder import ExpectedGradient, StepRecorder, prepared, watched_in
from kbitlint.model.trace.twin import originals_of, stand_in_quantized

if TYPE_CHECKING:
    from kbitlint.context import Checkpointing, TrainingContext
    from kbitlint.facts.model import ModelFacts

#: autograd raises these whatever the values are
_AUTOGRADS_OWN = re.compile(
    r"leaf Variable that requires grad|modified by an inplace operation|does not require grad"
    r"|Recomputed values|different number of tensors was saved|Inference tensors cannot be saved"
)
_ABOUT_DTYPES = re.compile(r"dtype|scalar type|same type|without overflow|bias type|can't be cast")


class UntraceableError(KbitlintError):
    """A step that cannot be run without weights; the message names the operator and the module."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What a step is run with."""

    context: TrainingContext
    device: str
    batch: int
    seq_len: int
    facts: ModelFacts
    virtual: bool
    """Whether scalars stand for adapters that are not attached yet."""


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended."""

    failure: str | None = None
    module: str = ""
    has_graph: bool = True
    """Whether the forward pass came to its end, so that the graph tells where gradients go."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step on a twin kept for its backward pass."""

    saved: dict[str, int]
    """Bytes, by module."""
    failure: str | None
    gradients: int
    """How many trainable parameters received one."""


class AllocationObserver(Protocol):
    """Who is told of what a step holds in memory."""

    def own(self, tensor: Tensor) -> None:
        """A tensor of the model itself, before the step."""

    def see(self, tensor: Tensor) -> None:
        """A tensor that an operator gives; it may share the storage of another."""

    def name(self, moment: str) -> None:
        """What runs from now on: ``model.layers.3.mlp, forward``."""


def run_twin(
    twin: nn.Module,
    context: TrainingContext,
    *,
    facts: ModelFacts,
    live: AllocationObserver,
    device: str = "cuda",
) -> StepCost:
    """Run one step on a twin, which is used up by it, and tell of everything that its operators allocate.

    Args:
        twin: The copy; its checkpointing is left as it is.
        context: Autocast, batch size (1 by default) and sequence length (2048 by default).
        facts: What the walk saw on the model.
        live: Told of the model's own tensors, of each tensor that an operator gives, and of what runs.
        device: Whose kernels to stand in for, ``cpu`` or ``cuda``.

    Raises:
        UntraceableError: The step needs values or kernels that a run without weights does not have.
    """
    context = dataclasses.replace(context, gradient_checkpointing=None)
    how = StepSettings(context, device, context.batch_size or 1, context.seq_len or 2048, facts, virtual=False)
    with seeded():
        step, watched, end = step_of(runnable(twin), how, live)
    return StepCost(step.saved, end.failure, sum(one.parameter.grad is not None for one in watched))


def step_of(
    twin: nn.Module, how: StepSettings, live: AllocationObserver | None = None
) -> tuple[StepRecorder, list[ExpectedGradient], StepEnd]:
    """Run a step on a twin, which is used up by it: what was gathered, what a gradient is expected at, how it ended.

    Args:
        twin: The copy.
        how: What it is run with.
        live: Told of what the step holds in memory.

    Raises:
        UntraceableError: The step needs values or kernels that a run without weights does not have, or it leads back to
            the original, or calls no module that holds a parameter.
    """
    if how.virtual:
        twin.requires_grad_(requires_grad=False)
    stood_in = stand_in_quantized(twin, how.device, adapters=how.virtual)
    step = prepared(twin, how.device, how.facts)
    if live is not None:
        step.ledger.allocated, step.moment = live.see, live.name
        for tensor in (*twin.parameters(), *twin.buffers()):
            live.own(tensor)
    step.ledger.packed = {id(weight): step.paths[id(module)] for module, weight in stood_in.packed}
    step.ledger.guard = Guard({original: path for path, module in step.modules.items() for original in originals_of(module)})
    watched = watched_in(step, how.facts, stood_in.adapters)
    with step.ledger.guard.watching():
        end = _run(step, how)
    _refuse_strangers(step, end)
    return step, watched, end


def _refuse_strangers(step: StepRecorder, end: StepEnd) -> None:
    """Raise UntraceableError where what ran was not, or not only, the twin: no verdict about the model follows from it."""
    guard = step.ledger.guard
    if guard is not None and guard.touched:
        raise UntraceableError(f"no training step without weights: {guard.touched}")
    holders = [path for path, module in step.modules.items() if module._parameters]  # noqa: SLF001  # own parameters
    if end.failure is None and holders and not any(path in step.passage.gives_grad for path in holders):
        raise UntraceableError("no training step without weights: it calls no module of the model that holds a parameter")


def runnable(model: nn.Module) -> nn.Module:
    """What the loop calls, below the wrappers of DDP and torch.compile, which add nothing to one rank's step."""
    while True:
        inner = adapters.seen_through(model)
        wrapped = inner._modules.get("module") if type(inner).__name__ in _WRAPPERS else None  # noqa: SLF001  # torch has no public dictionary
        if wrapped is None:
            return inner
        model = wrapped


_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine")


# -------------------------------------------------------------------------------------------------- the step


def _run(step: StepRecorder, how: StepSettings) -> StepEnd:
    """Forward and backward."""
    loop = how.context.gradient_checkpointing
    if how.context.sets_training_mode is not False:
        step.twin.train()
    forward_done = False
    try:
        if loop is not None and loop.enabled:
            _enable_checkpointing(step.twin, loop)
        inputs = training_batch(step.twin, "cpu", how.batch, how.seq_len)
        with observed(step.twin, lambda *seen: _see_checkpoint(step, *seen)), weightless(step.ledger), _autocast(how.context):
            with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _pack(step, tensor), _unpack):
                loss = loss_of(step.twin(**inputs))
            forward_done = True
            step.ledger.in_backward = True
            step.tell()
            _backward(loss)
    except Exception as error:
        where, text, ledger = _module_of(error, step.paths), str(error), step.ledger
        if ledger.guard is not None and ledger.guard.touched:
            return StepEnd(one_line(error), where, forward_done)
        if _ABOUT_DTYPES.search(text) and isinstance(error, (RuntimeError, ValueError)):
            refusal = Refusal(where, ledger.last_operator, _dtypes_in(text), ledger.in_backward)
            ledger.refusals.setdefault((where, refusal.operator), refusal)
        elif not (
            _AUTOGRADS_OWN.search(text) or ledger.packed_reads
        ):  # shapes and values may be those of our batch, or guessed
            place = f" in {where}" if where else ""
            operator = f"{ledger.last_operator}{place} raised " if ledger.last_operator else ""
            raise UntraceableError(f"no training step without weights: {operator}{one_line(error)}") from error
        return StepEnd(one_line(error), where, forward_done)
    return StepEnd()


def _enable_checkpointing(twin: nn.Module, loop: Checkpointing) -> None:
    """What the loop does before the first step: transformers 5 adds embedding hooks and 4 adds none, whatever the loop does."""
    before = {module: set(module._forward_hooks) for module in twin.modules()}  # noqa: SLF001  # torch has no public way to list hooks
    kwargs = {} if loop.use_reentrant is None else {"use_reentrant": loop.use_reentrant}
    base: Any = adapters.base_of(twin)
    checkpointing.enable(base, **kwargs)
    added = {module: set(module._forward_hooks) - known for module, known in before.items()}  # noqa: SLF001  # see above
    if loop.installs_hook and not any(added.values()):
        base.enable_input_require_grads()
    for module, numbers in added.items() if not loop.installs_hook else ():
        for number in numbers:
            del module._forward_hooks[number]  # noqa: SLF001  # what RemovableHandle.remove does


def _autocast(context: TrainingContext) -> contextlib.AbstractContextManager[Any]:
    if context.autocast_dtype in (None, "float32"):
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=getattr(torch, str(context.autocast_dtype)))


def _backward(loss: Tensor) -> None:
    """As loops do it, outside the autocast region.

    It starts at the edge of the graph: started at a tensor, torch would leave the function mode for the whole pass,
    and what checkpoints compute again would know that it is on meta.
    """
    if not loss.requires_grad:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    with torch.autocast("cpu", enabled=False):
        torch.autograd.backward(torch.autograd.graph.get_gradient_edge(loss), torch.ones_like(loss))


def _see_checkpoint(step: StepRecorder, module: nn.Module | None, use_reentrant: bool | None, requires_grad: bool) -> None:  # noqa: FBT001  # what observed() tells
    if not step.ledger.in_backward:
        path = step.where() if module is None else step.paths[id(module)]
        step.passage.checkpoint_calls.append(CheckpointCall(path, use_reentrant, requires_grad))


def _pack(step: StepRecorder, tensor: Tensor) -> tuple[Tensor, int]:
    """Count what is kept for the backward pass, each storage once."""
    storage = tensor.untyped_storage()
    key = storage._cdata  # noqa: SLF001  # the one identity that a storage has
    if key not in step.counted:
        step.counted[key] = weakref.ref(storage, lambda _: step.counted.pop(key, None))  # another may come to lie there
        place = step.where()
        step.saved[place] = step.saved.get(place, 0) + storage.nbytes()
    return tensor, tensor._version  # noqa: SLF001  # what autograd compares, too


def _unpack(packed: tuple[Tensor, int]) -> Tensor:
    """Give it back. Hooks turn off autograd's own check for tensors that were written in place since."""
    tensor, version = packed
    if tensor._version != version:  # noqa: SLF001  # see _pack
        raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation")
    return tensor


def _module_of(error: BaseException, paths: dict[int, str]) -> str:
    """The module whose code raised: the innermost frame that belongs to one."""
    found, frames = "", error.__traceback__
    while frames is not None:
        owner = frames.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            found = paths[id(owner)]
        frames = frames.tb_next
    return found


def _dtypes_in(text: str) -> tuple[torch.dtype, ...]:
    """The dtypes that an error message names, as torch spells them in C++ or in Python."""
    names = {
        "float": torch.float32,
        "float32": torch.float32,
        "half": torch.float16,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
        "byte": torch.uint8,
        "uint8": torch.uint8,
        "char": torch.int8,
    }
    return tuple(dict.fromkeys(names[word] for word in re.findall(r"[a-z]+\d*", text.lower()) if word in names))
