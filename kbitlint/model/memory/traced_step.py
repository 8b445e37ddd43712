"""One traced step of a twin: the bytes that live at each moment of it, beside those that live for the whole run.

Each operator of the step reports its allocations. autograd holds and frees them as in a real step. Layers that are alike are
not run one by one (``stacks``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.inputs.positions import USUAL_LENGTH
from kbitlint.model.inspect.walk import collect, named_modules
from kbitlint.model.layers import adapters, checkpointing
from kbitlint.model.memory.live_bytes import CUDA_BLOCK, Alive, LiveBytes
from kbitlint.model.memory.losses import tiled_loss
from kbitlint.model.memory.stacks import KEPT, canonical, repeated, shortened
from kbitlint.model.trace.cost import run_twin
from kbitlint.model.trace.fitting import plan_for
from kbitlint.model.trace.step import UntraceableError, runnable
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import Loss

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.context import TrainingContext
    from kbitlint.model.memory.stacks import Stack
    from kbitlint.step_plan import StepPlan


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


class FailedStepError(Exception):
    """A traced step that raises as a real one does."""


def traced_step(
    twin: nn.Module, context: TrainingContext, plan: StepPlan, device: str = "cuda", stacks: tuple[Stack, ...] | None = None
) -> TracedStep:
    """Return the bytes of a step. Stacks of like layers run with three and with four of their blocks.

    If such a short step cannot run, or has other moments than the longer one, the whole step runs.

    Args:
        twin: A copy of the model, with the flags of checkpointing that the step has. It is only read.
        context: Autocast, batch size and sequence length.
        plan: Loss and accumulation.
        device: The device whose kernels and allocator are simulated, ``cuda`` or ``cpu``.
        stacks: The stacks of the twin; None to look for them.

    Raises:
        UntraceableError: The step cannot run without weights.
        FailedStepError: The step raises as a real one does.
    """
    stacks = repeated(twin) if stacks is None else stacks
    if not stacks:
        return whole_step(twin, context, plan, device)
    least = {stack.path: KEPT for stack in stacks}
    try:
        short = _shortened_step(twin, context, plan, device, stacks, least)
        found = short
        for stack in stacks:
            longer = _shortened_step(twin, context, plan, device, stacks, {**least, stack.path: KEPT + 1})
            if set(longer.moments) != set(short.moments):
                return whole_step(twin, context, plan, device)
            found = TracedStep(
                found.saved + stack.cut * (longer.saved - short.saved),
                found.logits + stack.cut * (longer.logits - short.logits),
                {m: _further(found.moments[m], stack.cut, longer.moments[m], most) for m, most in short.moments.items()},
            )
    except (UntraceableError, FailedStepError):
        return whole_step(twin, context, plan, device)
    return found


def _further(alive: Alive, blocks: int, longer: Alive, shorter: Alive) -> Alive:
    """Return what lives with further blocks, each of which adds what one adds."""
    return Alive(*(all_ + blocks * (more - less) for all_, more, less in zip(alive, longer, shorter, strict=True)))


def _shortened_step(  # the arguments of whole_step, and what is left out
    twin: nn.Module,
    context: TrainingContext,
    plan: StepPlan,
    device: str,
    stacks: tuple[Stack, ...],
    blocks: dict[str, int],
) -> TracedStep:
    """Return the bytes of a step through some blocks of the stacks, with moments that do not depend on their number."""
    with shortened(twin, stacks, blocks):
        step = whole_step(twin, context, plan, device)
    moments: dict[str, Alive] = {}
    for moment, most in step.moments.items():
        place = canonical(moment, stacks, blocks)
        if place is not None:
            moments[place] = max(most, moments.get(place, most))
    return TracedStep(step.saved, step.logits, moments)


def whole_step(model: nn.Module, context: TrainingContext, plan: StepPlan, device: str = "cuda") -> TracedStep:
    """Run one step on a copy of a twin: on the documented batch, or on a corrected one.

    Raises:
        UntraceableError: The step cannot run without weights.
        FailedStepError: The step raises as a real one does.
    """
    try:
        return _step_on(DOCUMENTED, model, context, plan, device)
    except UntraceableError:
        batch = plan_for(runnable(model), device, context.batch_size or 1, context.seq_len or USUAL_LENGTH)
        if batch is None or batch == DOCUMENTED:
            raise
        return _step_on(batch, model, context, plan, device)


def _step_on(batch: Plan, model: nn.Module, context: TrainingContext, plan: StepPlan, device: str) -> TracedStep:
    twin, facts = twin_of(model), collect(model)
    if plan.loss is Loss.FUSED:
        tiled_loss(twin)
    ends = _ends(model)
    live = LiveBytes(CUDA_BLOCK if device == "cuda" else 1, ends=frozenset(ends))
    _name_backward(twin, live)
    settings = {"keeps_outputs": plan.loss is Loss.KEPT, "accumulated": plan.accumulation > 1}
    cost = run_twin(twin, context, facts=facts, live=live, device=device, plan=batch, **settings)
    if cost.failure:
        raise FailedStepError(cost.failure)
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
