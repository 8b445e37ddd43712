"""The memory that training a model needs, measured on a step without weights.

Bytes of resident tensors are counted. The rest is simulated. Each operator of the traced step reports its allocations. autograd
holds and frees them as in a real step. The peak thus includes activations, recomputed layers, unpacked weights of one product,
the float32 copy of the logits and cuBLAS' workspaces. It excludes the CUDA context and what the allocator reserves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import KINDS, Moment, StateMemory, StepMemory, mode_of
from kbitlint.model.inspect.walk import collect, named_modules
from kbitlint.model.layers import adapters, checkpointing
from kbitlint.model.memory.live_bytes import CUDA_BLOCK, Alive, LiveBytes
from kbitlint.model.memory.losses import tiled_loss
from kbitlint.model.memory.resident import optimizer_bytes, resident_bytes
from kbitlint.model.memory.stacks import KEPT, canonical, repeated, shortened
from kbitlint.model.trace.cost import run_twin
from kbitlint.model.trace.step import UntraceableError
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import Loss
from kbitlint.upstream import optimizers
from kbitlint.upstream.cards import WORKSPACE

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.context import TrainingContext
    from kbitlint.model.memory.ranks import Rank
    from kbitlint.model.memory.stacks import Stack
    from kbitlint.step_plan import StepPlan

OPTIMIZER_STEP = "the optimizer's step"


def measure(  # noqa: PLR0913  # each is one decision of the caller
    name: str,
    model: nn.Module,
    context: TrainingContext,
    plan: StepPlan,
    *,
    modes: tuple[str, ...] | None = None,
    owned: bool = False,
    known: dict[Any, TracedStep] | None = None,
    rank: Rank | None = None,
    beside: int = 0,
    device: str = "cuda",
) -> StateMemory:
    """Return the memory that training a model needs in its present state, in bytes.

    Args:
        name: The name of the state in the report.
        model: A model with trainable parameters, live or on the meta device. It is only read.
        context: Autocast, batch size and sequence length.
        plan: Optimizer, loss, accumulation and attention.
        modes: The modes of checkpointing to measure; None for all that the plan has.
        owned: Whether the model is a copy of the caller, whose flags may change.
        known: Steps of this model that ran before, by what decides them. The steps of this call are added.
        rank: The rank whose memory is asked for; None for a run on one card.
        beside: Bytes of other models that the run holds.
        device: The device whose kernels and allocator are simulated, ``cuda`` or ``cpu``.

    Returns:
        Resident bytes by kind, bytes of gradients and optimizer state, and one StepMemory for each checkpointing mode. If a
        step fails, ``failure`` holds the reason, and later modes are missing.
    """
    facts = collect(model)
    resident = dict.fromkeys(KINDS, 0) | resident_bytes(model, facts) | {"other models": beside}
    gradients = sum(parameter.nbytes for parameter in facts.trainable)
    state, host = optimizer_bytes(model, plan.optimizer)
    buckets = 0
    if rank is not None:
        resident, buckets = rank.resident(resident), rank.buckets(gradients)
        state, host = rank.optimizer(state, host)
    held = sum(resident.values()) + state + buckets + (WORKSPACE if device == "cuda" else 0)
    steps: dict[str, StepMemory] = {}
    failure = None
    known = {} if known is None else known
    twin = model if owned else twin_of(model)
    _attend_as(twin, plan.attention)
    for mode, stride in modes_of(plan).items():
        if (modes is not None and mode not in modes) or not _checkpoint(twin, stride):
            continue
        key = (stride, plan.loss, plan.attention, plan.accumulation > 1, context, device)
        try:
            step = known[key] if key in known else known.setdefault(key, _step(twin, context, plan, device))
        except (UntraceableError, _FailedStepError) as error:
            failure = str(error)
            break
        timeline = _timeline(step, gradients, plan, held, rank)
        peak = max(timeline, key=lambda moment: moment.total)
        steps[mode] = StepMemory(step.saved - step.logits, step.logits, peak.total, peak.name, timeline)
    gradients = gradients if rank is None else rank.gradients(gradients)
    return StateMemory(name, resident, gradients, state, steps, failure, host, buckets)


def _timeline(step: TracedStep, gradients: int, plan: StepPlan, held: int, rank: Rank | None) -> tuple[Moment, ...]:
    """Return the moments of a step and of the update that follows, in their order, each at its most bytes.

    With accumulation, the gradients of an earlier batch are held. torch's own optimizers allocate as much again in the update.
    """
    left = gradients if rank is None else rank.gradients(gradients)
    earlier = left if plan.accumulation > 1 else 0
    found = []
    for name, alive in step.moments.items():
        beside = 0 if rank is None else rank.beside(name, alive)
        parts = (alive.activations, alive.logits, alive.gradients + earlier)
        found.append(Moment(name, held + alive.total + earlier + beside, held, *parts, beside))
    update = left * (2 if optimizers.find(plan.optimizer).scratch else 1)
    return (*found, Moment(OPTIMIZER_STEP, held + update, held, 0, 0, left, 0))


def modes_of(plan: StepPlan) -> dict[str, int]:
    """Return the modes of checkpointing of a plan: name -> every how many layers checkpoint, 0 for none."""
    return {mode_of(stride): stride for stride in (0, 1, *filter(None, [plan.every]))}


@dataclass(frozen=True, slots=True)
class TracedStep:
    """The bytes of one step beside those that live for the whole run."""

    saved: int
    """Bytes saved for the backward pass."""
    logits: int
    """The part of them that the head and the loss save."""
    moments: dict[str, Alive]
    """The most bytes at each moment, in their order."""

    @property
    def peak(self) -> int:
        """The most bytes at any moment."""
        return max(alive.total for alive in self.moments.values())


class _FailedStepError(Exception):
    """A traced step that raises as a real one does."""


def _step(twin: nn.Module, context: TrainingContext, plan: StepPlan, device: str = "cuda") -> TracedStep:
    """Return the bytes of a step. Stacks of like layers run with three and with four of their blocks.

    If such a short step cannot run, or has other moments than the longer one, the whole step runs.
    """
    stacks = repeated(twin)
    if not stacks:
        return _traced(twin, context, plan, device)
    least = {stack.path: KEPT for stack in stacks}
    try:
        short = _shortened_step(twin, context, plan, device, stacks, least)
        found = short
        for stack in stacks:
            longer = _shortened_step(twin, context, plan, device, stacks, {**least, stack.path: KEPT + 1})
            if set(longer.moments) != set(short.moments):
                return _traced(twin, context, plan, device)
            found = TracedStep(
                found.saved + stack.cut * (longer.saved - short.saved),
                found.logits + stack.cut * (longer.logits - short.logits),
                {m: _further(found.moments[m], stack.cut, longer.moments[m], most) for m, most in short.moments.items()},
            )
    except (UntraceableError, _FailedStepError):
        return _traced(twin, context, plan, device)
    return found


def _further(alive: Alive, blocks: int, longer: Alive, shorter: Alive) -> Alive:
    """Return what lives with further blocks, each of which adds what one adds."""
    return Alive(*(all_ + blocks * (more - less) for all_, more, less in zip(alive, longer, shorter, strict=True)))


def _shortened_step(  # the arguments of _traced, and what is left out
    twin: nn.Module,
    context: TrainingContext,
    plan: StepPlan,
    device: str,
    stacks: tuple[Stack, ...],
    blocks: dict[str, int],
) -> TracedStep:
    """Return the bytes of a step through some blocks of the stacks, with moments that do not depend on their number."""
    with shortened(twin, stacks, blocks):
        step = _traced(twin, context, plan, device)
    moments: dict[str, Alive] = {}
    for moment, most in step.moments.items():
        place = canonical(moment, stacks, blocks)
        if place is not None:
            moments[place] = max(most, moments.get(place, most))
    return TracedStep(step.saved, step.logits, moments)


def _traced(model: nn.Module, context: TrainingContext, plan: StepPlan, device: str = "cuda") -> TracedStep:
    """Run one step on a copy of a twin.

    Raises:
        UntraceableError: The step cannot run without weights.
        _FailedStepError: The step raises as a real one does.
    """
    twin, facts = twin_of(model), collect(model)
    if plan.loss is Loss.FUSED:
        tiled_loss(twin)
    ends = _ends(model)
    live = LiveBytes(CUDA_BLOCK if device == "cuda" else 1, ends=frozenset(ends))
    _name_backward(twin, live)
    settings = {"keeps_outputs": plan.loss is Loss.KEPT, "accumulated": plan.accumulation > 1}
    cost = run_twin(twin, context, facts=facts, live=live, device=device, **settings)
    if cost.failure:
        raise _FailedStepError(cost.failure)
    logits = sum(size for path, size in cost.saved.items() if path in ends)
    return TracedStep(sum(cost.saved.values()), logits, live.moments)


def _name_backward(twin: nn.Module, live: LiveBytes) -> None:
    """Tell the observer which layer's backward pass starts, when the gradient of the layer's output is known.

    Each gradient of a parameter is told too.
    """
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(live.accumulate)
    for path, module in named_modules(twin):
        facts = checkpointing.checkpoint_facts(module, path)
        if facts is not None and facts.is_layer:
            module.register_forward_hook(_Marker(path, live))


@dataclass(frozen=True, slots=True)
class _Marker:
    """A forward hook that marks the layer's output."""

    path: str
    live: LiveBytes

    def __call__(self, _: nn.Module, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if not self.live.layer and getattr(first, "requires_grad", False):
            first.register_hook(lambda _: self.live.enter_backward(self.path))


def _ends(model: nn.Module) -> set[str]:
    """Return the paths of what computes logits and loss: the head, and the outermost model, whose path is empty."""
    base: Any = adapters.base_of(model)
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    return {"", *(path for path, module in named_modules(model) if module is head or module is base)}


def _attend_as(twin: Any, attention: str | None) -> None:
    """Set the attention implementation where transformers reads it at each call."""
    for module in twin.modules() if attention else ():
        if hasattr(getattr(module, "config", None), "_attn_implementation"):
            module.config._attn_implementation = attention  # noqa: SLF001  # no public setter works without weights


def _checkpoint(twin: nn.Module, stride: int) -> bool:
    """Enable checkpointing for every n-th layer, or for none if ``stride`` is 0.

    Return False if the class of the model does not support checkpointing.
    """
    base: Any = adapters.base_of(twin)
    if stride:
        if not checkpointing.supports_checkpointing(base):
            return False
        checkpointing.enable(base, use_reentrant=False)
    flagged = [module for module in twin.modules() if checkpointing.FLAG in module.__dict__]
    layers = [module for module in flagged if getattr(checkpointing.checkpoint_facts(module, ""), "is_layer", False)]
    for number, module in enumerate(layers):
        module.__dict__[checkpointing.FLAG] = bool(stride) and number % stride == 0
    if not stride:
        for module in flagged:
            module.__dict__[checkpointing.FLAG] = False
    return True
