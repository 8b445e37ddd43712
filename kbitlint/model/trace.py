"""One training step of a model without its weights: forward and backward on tensors that have no contents.

The step runs on a twin of the model (``kbitlint.model.twin``), so the model is untouched. It takes a second for 80
layers, needs neither GPU nor memory, and shows what attributes cannot: which parameters the loss reaches, which kernels
refuse their dtypes, what is kept for the backward pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError, one_line
from kbitlint.model import adapters, checkpointing
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.checkpoint_calls import observed
from kbitlint.model.gradients import Passage, why_cut
from kbitlint.model.quantized import short_name
from kbitlint.model.trace_facts import (
    CheckpointCall,
    Cut,
    GradientFacts,
    LayerFacts,
    PackedReadFacts,
    PromotionFacts,
    RefusalFacts,
    SavedFacts,
    TraceFacts,
)
from kbitlint.model.twin import stand_in_quantized, twin_of
from kbitlint.model.walk import collect, places
from kbitlint.model.weightless import Ledger, Refusal, weightless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.context import Checkpointing
    from kbitlint.model.facts import ModelFacts

HALF = (torch.bfloat16, torch.float16)
#: autograd raises these whatever the values are
_AUTOGRADS_OWN = re.compile(
    r"leaf Variable that requires grad|modified by an inplace operation|does not require grad"
    r"|Recomputed values|different number of tensors was saved"
)
_ABOUT_DTYPES = re.compile(r"dtype|scalar type|same type|without overflow|bias type|can't be cast")


class UntraceableError(KbitlintError):
    """A step that cannot be run without weights; the message names the operator and the module."""


@dataclass(slots=True)
class _Step:
    """What is being gathered while the step runs."""

    twin: nn.Module
    ledger: Ledger
    paths: dict[int, str]
    modules: dict[str, nn.Module]
    passage: Passage = field(default_factory=Passage)
    running: list[str] = field(default_factory=list)
    layers: dict[str, LayerFacts] = field(default_factory=dict)
    promotions: dict[str, PromotionFacts] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    counted: set[int] = field(default_factory=set)
    moment: Callable[[str], None] | None = None

    def tell(self) -> None:
        """Say what runs, to whoever asked."""
        if self.moment is not None:
            self.moment(f"{self.where() or 'the model'}, {'backward' if self.ledger.in_backward else 'forward'}")

    def where(self) -> str:
        return self.running[-1] if self.running else ""


def trace(
    model: nn.Module,
    context: TrainingContext | None = None,
    *,
    device: str | None = None,
    batch: int = 2,
    seq_len: int = 16,
    facts: ModelFacts | None = None,
) -> TraceFacts:
    """Run one training step without weights. The model is only read.

    A quantized base without adapters is traced with everything frozen and a scalar on each quantized layer that
    stands for its adapter.

    Args:
        model: A model, live or on meta, with or without adapters.
        context: How it will be trained: autocast, and what the loop does about checkpointing.
        device: Whose kernels to stand in for, ``cpu`` or ``cuda``; by default the model's own, and CUDA for meta.
        batch: Sequences in the batch.
        seq_len: Tokens a sequence.
        facts: What the walk saw on the model, where it is known.

    Where kernels refuse their dtypes and it is not known whether the loop opens an autocast region, the step is run
    once more in one.

    Raises:
        UntraceableError: The step needs values or kernels that a run without weights does not have.
        TwinError: The model cannot be copied.
    """
    start = time.perf_counter()
    context = context or TrainingContext()
    facts = facts or collect(model)
    device = device or ("cpu" if any(p.device == "cpu" for p in facts.parameters) else "cuda")
    inner = _runnable(model)
    how = _How(context, device, batch, seq_len, facts, virtual=bool(facts.quantized) and not facts.has_adapters)
    with _quietly(), _same_random_state():
        step, watched, end = _step_of(twin_of(inner), how)
        gradients = tuple(_gradients(step, watched)) if end.has_graph else ()
        if any(gradient.cut is not None and gradient.runs and not gradient.reentrant for gradient in gradients):
            lost = _lost_inherently(inner, how)
            gradients = tuple(
                dataclasses.replace(gradient, inherent=gradient.path in lost and _is_library_code(step, gradient))
                for gradient in gradients
            )
    ledger = step.ledger
    traced = TraceFacts(
        model=facts,
        device=device,
        autocast=context.autocast_dtype,
        batch=(batch, seq_len),
        gradients=gradients,
        refusals=tuple(_refusal(refusal) for refusal in ledger.refusals.values()),
        packed_reads=tuple(PackedReadFacts(path, reader, name) for (path, reader), name in ledger.packed_reads.items()),
        layers=tuple(step.layers.values()),
        promotions=tuple(step.promotions.values()),
        checkpoint_calls=tuple(step.passage.checkpoint_calls),
        saved=tuple(SavedFacts(path, nbytes) for path, nbytes in step.saved.items()),
        called=frozenset(step.passage.gives_grad),
        guesses=tuple(sorted(ledger.guesses.items())),
        failure=end.failure,
        failed_at=end.module,
    )
    if traced.refusals and context.autocast_dtype is None:
        try:
            again = trace(
                model,
                dataclasses.replace(context, autocast_dtype="bfloat16"),
                device=device,
                batch=batch,
                seq_len=seq_len,
                facts=facts,
            )
        except UntraceableError:
            again = traced
        traced = dataclasses.replace(traced, absorbed=not again.refusals and again.failure is None)
    return dataclasses.replace(traced, seconds=time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class Span:
    """What one step on a twin kept for its backward pass."""

    saved: dict[str, int]
    """Bytes, by module."""
    failure: str | None
    gradients: int
    """How many trainable parameters received one."""


class Witness(Protocol):
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
    live: Witness,
    device: str = "cuda",
) -> Span:
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
    how = _How(context, device, context.batch_size or 1, context.seq_len or 2048, facts, virtual=False)
    with _quietly(), _same_random_state():
        step, watched, end = _step_of(_runnable(twin), how, live)
    return Span(step.saved, end.failure, sum(one.parameter.grad is not None for one in watched))


@dataclass(frozen=True, slots=True)
class _How:
    """What a step is run with."""

    context: TrainingContext
    device: str
    batch: int
    seq_len: int
    facts: ModelFacts
    virtual: bool
    """Whether scalars stand for adapters that are not attached yet."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a step ended."""

    failure: str | None = None
    module: str = ""
    has_graph: bool = True
    """Whether the forward pass came to its end, so that the graph tells where gradients go."""


def _step_of(twin: nn.Module, how: _How, live: Witness | None = None) -> tuple[_Step, list[_Watched], _End]:
    if how.virtual:
        twin.requires_grad_(requires_grad=False)
    stood_in = stand_in_quantized(twin, how.device, adapters=how.virtual)
    step = _prepared(twin, how.device, how.facts)
    if live is not None:
        step.ledger.allocated, step.moment = live.see, live.name
        for tensor in (*twin.parameters(), *twin.buffers()):
            live.own(tensor)
    step.ledger.packed = {id(weight): step.paths[id(module)] for module, weight in stood_in.packed}
    watched = _watched(step, how.facts, stood_in.adapters)
    return step, watched, _run(step, how)


def _lost_inherently(inner: nn.Module, how: _How) -> frozenset[str]:
    """Paths of what gets no gradient in a twin that is stripped of hooks, checkpoints and forwards of its own."""
    twin = twin_of(inner)
    for module in twin.modules():
        module._forward_hooks.clear()  # noqa: SLF001  # torch has no public way to remove the hooks of others
        module._forward_pre_hooks.clear()  # noqa: SLF001  # see above
        module.__dict__.pop("forward", None)
        if checkpointing.FLAG in module.__dict__:
            module.__dict__[checkpointing.FLAG] = False
    plain = dataclasses.replace(how, context=dataclasses.replace(how.context, gradient_checkpointing=None))
    try:
        step, watched, end = _step_of(twin, plain)
    except UntraceableError:
        return frozenset()
    return frozenset(gradient.path for gradient in _gradients(step, watched) if not gradient.arrives and end.has_graph)


def _runnable(model: nn.Module) -> nn.Module:
    """What the loop calls, below the wrappers of DDP and torch.compile, which add nothing to one rank's step."""
    while True:
        inner = adapters.seen_through(model)
        wrapped = inner._modules.get("module") if type(inner).__name__ in _WRAPPERS else None  # noqa: SLF001  # torch has no public dictionary
        if wrapped is None:
            return inner
        model = wrapped


_WRAPPERS = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep warnings and log lines about the twin to ourselves."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def _same_random_state() -> Iterator[None]:
    """The step draws random tokens; nobody else's numbers may change by it."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            random.seed(0)
            yield
    finally:
        random.setstate(state)


# ------------------------------------------------------------------------------------------------ getting ready


def _prepared(twin: nn.Module, device: str, facts: ModelFacts) -> _Step:
    """The twin with hooks that say what runs."""
    found = list(places(twin))
    step = _Step(twin, Ledger(device), {id(module): path for path, module in found}, dict(found))
    step.ledger.where = step.where
    layers = {checkpoint.path for checkpoint in facts.checkpoints if checkpoint.is_layer} or _stacked(found)
    for path, module in found:
        _watch(module, path, step, is_layer=path in layers)
    step.counted = {
        tensor.untyped_storage()._cdata  # noqa: SLF001  # the one identity that a storage has
        for _, module in found
        for tensor in (*module._parameters.values(), *module._buffers.values())  # noqa: SLF001  # torch has no public dictionary
        if tensor is not None
    }
    return step


def _stacked(found: list[tuple[str, nn.Module]]) -> set[str]:
    """Paths of the children of module lists: the layers of a model that cannot checkpoint."""
    return {
        f"{path}.{name}" for path, module in found if isinstance(module, nn.ModuleList) for name, _ in module.named_children()
    }


def _watch(module: nn.Module, path: str, step: _Step, *, is_layer: bool) -> None:
    own = any(p is not None and p.is_floating_point() for p in module._parameters.values())  # noqa: SLF001  # own tensors only

    def enter(_: nn.Module, __: tuple[Any, ...]) -> None:
        step.running.append(path)
        step.tell()
        if not torch.is_grad_enabled() and not step.ledger.in_backward:
            step.passage.entered_without_grad.add(path)

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if step.running:
            step.running.pop()
            step.tell()
        if step.ledger.in_backward or output is None:
            return
        first = _first_floating(output)
        step.passage.gives_grad[path] = step.passage.gives_grad.get(path, False) or _requires_grad(output)
        if not (own or is_layer) or first is None:
            return
        incoming = _first_floating((*args, *kwargs.values()))
        if incoming is None:
            return
        if is_layer and path not in step.layers:
            step.layers[path] = LayerFacts(path, short_name(incoming.dtype), short_name(first.dtype))
        if own and incoming.dtype in HALF and first.dtype is torch.float32:
            step.promotions.setdefault(
                path, PromotionFacts(path, type(module).__name__, short_name(incoming.dtype), short_name(first.dtype))
            )

    module.register_forward_pre_hook(enter, prepend=True)
    module.register_forward_hook(leave, with_kwargs=True, always_call=True)


def _floating(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _floating(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floating(item)


def _first_floating(value: Any) -> Tensor | None:
    return next(_floating(value), None)


def _requires_grad(output: Any) -> bool:
    found = list(_floating(output))
    return not found or any(tensor.requires_grad for tensor in found)


def _watched(step: _Step, facts: ModelFacts, scalars: tuple[tuple[nn.Module, nn.Parameter], ...]) -> list[_Watched]:
    """What a gradient is expected at, in the order of the walk."""
    added = {parameter.path for parameter in facts.parameters if parameter.adapter}
    found: dict[int, _Watched] = {}
    for path, module in places(step.twin):
        for name, parameter in module._parameters.items():  # noqa: SLF001  # own parameters with their names
            if parameter is not None and parameter.requires_grad and id(parameter) not in found:
                full = f"{path}.{name}" if path else name
                found[id(parameter)] = _Watched(parameter, full, path, adapter=full in added, virtual=False)
    for module, scalar in scalars:
        path = step.paths[id(module)]
        found[id(scalar)] = _Watched(scalar, path, path, adapter=True, virtual=True)
    step.ledger.watched = {key: watched.parameter for key, watched in found.items()}
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Watched:
    parameter: nn.Parameter
    path: str
    owner: str
    adapter: bool
    virtual: bool


# -------------------------------------------------------------------------------------------------- the step


def _run(step: _Step, how: _How) -> _End:
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
        if _ABOUT_DTYPES.search(text) and isinstance(error, (RuntimeError, ValueError)):
            refusal = Refusal(where, ledger.last_operator, _dtypes_in(text), ledger.in_backward)
            ledger.refusals.setdefault((where, refusal.operator), refusal)
        elif not (
            _AUTOGRADS_OWN.search(text) or ledger.packed_reads
        ):  # shapes and values may be those of our batch, or guessed
            place = f" in {where}" if where else ""
            operator = f"{ledger.last_operator}{place} raised " if ledger.last_operator else ""
            raise UntraceableError(f"no training step without weights: {operator}{one_line(error)}") from error
        return _End(one_line(error), where, forward_done)
    return _End()


def _enable_checkpointing(twin: nn.Module, loop: Checkpointing) -> None:
    """What the loop does before the first step; transformers 5 adds embedding hooks, whether the loop has any or not."""
    before = {module: set(module._forward_hooks) for module in twin.modules()}  # noqa: SLF001  # torch has no public way to list hooks
    kwargs = {} if loop.use_reentrant is None else {"use_reentrant": loop.use_reentrant}
    checkpointing.enable(adapters.base_of(twin), **kwargs)
    for module, known in before.items() if not loop.installs_hook else ():
        for number in set(module._forward_hooks) - known:  # noqa: SLF001  # see above
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


def _see_checkpoint(step: _Step, use_reentrant: bool | None, requires_grad: bool) -> None:  # noqa: FBT001  # what observed() tells
    if not step.ledger.in_backward:
        step.passage.checkpoint_calls.append(CheckpointCall(step.where(), use_reentrant, requires_grad))


def _pack(step: _Step, tensor: Tensor) -> tuple[Tensor, int]:
    """Count what is kept for the backward pass, each storage once."""
    storage = tensor.untyped_storage()
    key = storage._cdata  # noqa: SLF001  # see _prepared
    if key not in step.counted:
        step.counted.add(key)
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


# -------------------------------------------------------------------------------------------------- the answers


def _gradients(step: _Step, watched: list[_Watched]) -> Iterator[GradientFacts]:
    ledger = step.ledger
    for one in watched:
        if one.parameter.grad is not None:
            yield GradientFacts(one.path, arrives=True, adapter=one.adapter, virtual=one.virtual)
            continue
        key = id(one.parameter)
        used, without = ledger.used.get(key), ledger.used_without_grad.get(key)
        if one.virtual and one.owner in step.passage.gives_grad:  # a scalar meets no operator; its layer does
            recorded = one.owner not in step.passage.entered_without_grad
            used, without = (one.owner, None) if recorded else (None, one.owner)
        cut, at = why_cut(one.parameter, one.owner, step.passage, used, without, ledger.detached)
        at = _adapted_layer(step, at)
        yield GradientFacts(one.path, arrives=False, adapter=one.adapter, virtual=one.virtual, cut=cut, at=at)


def _class_at(step: _Step, path: str) -> str:
    """The module that defines the class of what stands at a path."""
    return str(type(step.modules.get(path)).__module__)


def _adapted_layer(step: _Step, path: str) -> str:
    """The layer that an adapter is attached to, for places inside the adapter; the path itself elsewhere."""
    around = [path.rsplit(".", count)[0] for count in range(path.count(".") + 1)]
    return next((place for place in reversed(around) if _class_at(step, place).startswith("peft.")), path)


def _is_library_code(step: _Step, gradient: GradientFacts) -> bool:
    """Whether the class that cuts a gradient is the architecture's own: transformers' or a checkpoint's remote code.

    What runs without recording gradients is called so by the module around it.
    """
    path = gradient.at.rpartition(".")[0] if gradient.cut is Cut.NO_GRAD else gradient.at
    while path and _class_at(step, path).split(".")[0] in ("torch", "peft", "bitsandbytes", "builtins"):
        path = path.rpartition(".")[0]
    return _class_at(step, path).split(".")[0] in ("transformers", "transformers_modules")


def _refusal(refusal: Refusal) -> RefusalFacts:
    return RefusalFacts(
        refusal.where, refusal.operator, tuple(short_name(dtype) for dtype in refusal.dtypes), refusal.in_backward
    )
