"""The memory that training a model needs, measured on a step without weights.

Bytes of resident tensors are counted. The rest is simulated (``traced_step``). The peak thus includes activations, recomputed
layers, unpacked weights of one product, the float32 copy of the logits and cuBLAS' workspaces. It excludes the CUDA context and
what the allocator reserves.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from kbitlint.memory_result import KINDS, Moment, StateMemory, StepMemory, mode_of
from kbitlint.model.inspect.walk import collect
from kbitlint.model.layers import adapters, checkpointing
from kbitlint.model.memory.resident import optimizer_bytes, resident_bytes
from kbitlint.model.memory.stacks import repeated
from kbitlint.model.memory.traced_step import FailedStepError, TracedStep, traced_step
from kbitlint.model.trace.step import UntraceableError
from kbitlint.model.trace.twin import twin_of
from kbitlint.upstream import optimizers
from kbitlint.upstream.cards import WORKSPACE

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.context import TrainingContext
    from kbitlint.model.memory.ranks import Rank
    from kbitlint.model.memory.stacks import Stack
    from kbitlint.step_plan import StepPlan

OPTIMIZER_STEP = "the optimizer's step"


def measure(  # noqa: PLR0913  # each is one setting of a measurement
    name: str,
    model: nn.Module,
    context: TrainingContext,
    plan: StepPlan,
    *,
    owned: bool = False,
    device: str = "cuda",
    modes: tuple[str, ...] | None = None,
    rank: Rank | None = None,
) -> StateMemory:
    """Return the memory that training a model needs in its present state, in bytes.

    Args:
        name: The name of the state in the report.
        model: A model with trainable parameters, live or on the meta device. It is only read.
        context: Autocast, batch size and sequence length.
        plan: Optimizer, loss, accumulation and attention.
        owned: Whether the model is a copy of the caller, whose flags may change.
        device: As for ``StepMeter``.
        modes: As for ``StepMeter.measure``, and so is ``rank``.
        rank: The rank whose memory is asked for; None for a run on one card.
    """
    meter = StepMeter(model if owned else twin_of(model), device)
    return meter.measure(name, context, plan, modes=modes, rank=rank)


class StepMeter:
    """Measures steps of one model. The model is walked once, and each distinct step runs once.

    Args:
        twin: A copy of the model, whose flags may change.
        device: The device whose kernels and allocator are simulated, ``cuda`` or ``cpu``.
        known: Steps of equal models that ran before, by what decides them. The steps of this meter are added.
    """

    def __init__(self, twin: nn.Module, device: str = "cuda", known: dict[Any, TracedStep] | None = None) -> None:
        self.twin, self.device = twin, device
        self.known: dict[Any, TracedStep] = {} if known is None else known
        facts = collect(twin)
        self._resident = dict.fromkeys(KINDS, 0) | resident_bytes(twin, facts)
        self._gradients = sum(parameter.nbytes for parameter in facts.trainable)
        self._can_checkpoint = checkpointing.supports_checkpointing(adapters.base_of(twin))
        self._optimizers: dict[str, tuple[int, int]] = {}
        self._stacks: dict[tuple[int, str | None], tuple[Stack, ...]] = {}

    def measure(
        self,
        name: str,
        context: TrainingContext,
        plan: StepPlan,
        *,
        modes: tuple[str, ...] | None = None,
        rank: Rank | None = None,
        beside: int = 0,
    ) -> StateMemory:
        """Return the memory that training the model needs, in bytes.

        Args:
            name: The name of the state in the report.
            context: Autocast, batch size and sequence length.
            plan: Optimizer, loss, accumulation and attention.
            modes: The modes of checkpointing to measure; None for all that the plan has.
            rank: The rank whose memory is asked for; None for a run on one card.
            beside: Bytes of other models that the run holds.

        Returns:
            Resident bytes by kind, bytes of gradients and optimizer state, and one StepMemory for each checkpointing mode. If
            a step fails, ``failure`` holds the reason, and later modes are missing.
        """
        resident, buckets, gradients = self._resident | {"other models": beside}, 0, self._gradients
        earlier = gradients if plan.accumulation > 1 else 0
        state, host = self._optimizer(plan.optimizer)
        if rank is not None:
            resident, buckets = rank.resident(resident), rank.buckets(gradients)
            state, host = rank.optimizer(state, host)
            earlier, gradients = rank.earlier(earlier), rank.gradients(gradients)
        held = sum(resident.values()) + state + buckets + (WORKSPACE if self.device == "cuda" else 0)
        steps: dict[str, StepMemory] = {}
        failure = None
        for mode, stride in modes_of(plan).items():
            if (modes is not None and mode not in modes) or (stride and not self._can_checkpoint):
                continue
            try:
                step = self._step(context, plan, stride)
            except (UntraceableError, FailedStepError) as error:
                failure = str(error)
                break
            timeline = _timeline(step, (gradients, earlier), plan, held, rank)
            peak = max(timeline, key=lambda moment: moment.total)
            steps[mode] = StepMemory(step.saved - step.logits, step.logits, peak.total, peak.name, timeline)
        return StateMemory(name, resident, gradients, state, steps, failure, host, buckets)

    def _optimizer(self, name: str) -> tuple[int, int]:
        """Return the bytes of an optimizer's state on (the device, the host)."""
        if name not in self._optimizers:
            self._optimizers[name] = optimizer_bytes(self.twin, name)
        return self._optimizers[name]

    def _step(self, context: TrainingContext, plan: StepPlan, stride: int) -> TracedStep:
        key = (stride, plan.loss, plan.attention, plan.accumulation > 1, context, self.device)
        if key not in self.known:
            twin = self._checkpointed if stride else self.twin
            _attend_as(twin, plan.attention)
            _set_checkpointing(twin, stride)
            like = (stride, plan.attention)
            if like not in self._stacks:
                self._stacks[like] = repeated(twin)
            self.known[key] = traced_step(twin, context, plan, self.device, self._stacks[like])
        return self.known[key]

    @functools.cached_property
    def _checkpointed(self) -> nn.Module:
        """Return a copy of the twin for checkpointed steps. To enable checkpointing leaves a hook on the embeddings (PEFT)."""
        return twin_of(self.twin)


def _timeline(
    step: TracedStep, held_gradients: tuple[int, int], plan: StepPlan, held: int, rank: Rank | None
) -> tuple[Moment, ...]:
    """Return the moments of a step and of the update that follows, in their order, each at its most bytes.

    ``held_gradients`` are those that a rank holds (at the end of a step, of earlier batches that are accumulated).
    torch's own optimizers allocate as much again in the update.
    """
    gradients, earlier = held_gradients
    found = []
    for name, alive in step.moments.items():
        beside = 0 if rank is None else rank.beside(name, alive)
        parts = (alive.activations, alive.logits, alive.gradients + earlier)
        found.append(Moment(name, held + alive.total + earlier + beside, held, *parts, beside))
    update = gradients * (2 if optimizers.find(plan.optimizer).scratch else 1)
    return (*found, Moment(OPTIMIZER_STEP, held + update, held, 0, 0, gradients, 0))


def modes_of(plan: StepPlan) -> dict[str, int]:
    """Return the modes of checkpointing of a plan: name -> every how many layers checkpoint, 0 for none."""
    return {mode_of(stride): stride for stride in (0, 1, *filter(None, [plan.every]))}


def _attend_as(twin: Any, attention: str | None) -> None:
    """Set the attention implementation where transformers reads it at each call."""
    for module in twin.modules() if attention else ():
        if hasattr(getattr(module, "config", None), "_attn_implementation"):
            module.config._attn_implementation = attention  # noqa: SLF001  # no public setter works without weights


def _set_checkpointing(twin: Any, stride: int) -> None:
    """Enable checkpointing for every n-th layer, or for none if ``stride`` is 0."""
    if stride:
        checkpointing.enable(adapters.base_of(twin), use_reentrant=False)
    flagged = [module for module in twin.modules() if checkpointing.FLAG in module.__dict__]
    layers = [module for module in flagged if getattr(checkpointing.checkpoint_facts(module, ""), "is_layer", False)]
    for number, module in enumerate(layers):
        module.__dict__[checkpointing.FLAG] = bool(stride) and number % stride == 0
    if not stride:
        for module in flagged:
            module.__dict__[checkpointing.FLAG] = False
