"""The memory of training, side by side: the model as it is, after PEFT's preparation, after kbitlint's fix.

Imports of torch, PEFT and ``kbitlint.model`` are inside functions: audits of scripts and files need none of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint import engine, registry
from kbitlint.context.launch import Launch
from kbitlint.errors import KbitlintError, one_line
from kbitlint.extras import load_peft
from kbitlint.fixes.lora import attached
from kbitlint.fixes.measured_target import measurable
from kbitlint.fixes.model import fix_model
from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import ON, StateMemory
from kbitlint.sizes import size
from kbitlint.step_plan import StepPlan, loss_named
from kbitlint.step_report import MemoryReport
from kbitlint.upstream import optimizers
from kbitlint.upstream.cards import on_card
from kbitlint.violation import Safety, Surface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.fixes.lora import Lora
    from kbitlint.model.memory.phases import BesideSteps


def budget_of(  # noqa: PLR0913  # each is one setting of a measurement
    model: Any,
    context: TrainingContext,
    *,
    lora: Lora | None,
    plan: StepPlan,
    named: tuple[str, tuple[str, ...]] = ("", ()),
    against_peft: bool = True,
    launch: Launch | None = None,
    told: Callable[[str], None] | None = None,
    live: Any = None,
) -> MemoryReport:
    """Measure a model as it is, after PEFT's preparation and after kbitlint's fix; it is only read.

    If unsafe fixes give back memory, the model is measured with them too.

    Args:
        model: A model, live or on meta.
        context: Autocast, batch size and sequence length (1 and 2048 if they are not set).
        lora: The LoRA to attach if the model has no adapters.
        plan: The optimizer and the other settings of the step.
        named: The target, and the notes on how it was built.
        against_peft: Whether to measure PEFT's preparation too.
        launch: The ranks of the run; None for one card.
        told: Receives the first peak in words, before the others are measured.
        live: The Trainer that holds the model; None if there is none.
    """
    from kbitlint.model.inputs.extent import shape_for
    from kbitlint.model.inputs.structure import described
    from kbitlint.model.inputs.supplied import is_supplied
    from kbitlint.model.inspect.walk import collect
    from kbitlint.model.memory.phases import BesideSteps

    name, notes = named
    facts = collect(model)
    batch, seq_len = shape_for(model, context.batch_size, context.seq_len)
    context = dataclasses.replace(context, seq_len=seq_len)
    attached_here = None if facts.has_adapters else lora
    launch = launch or Launch()
    how = _How(context, attached_here, plan, launch, BesideSteps(model if live is None else live, model, launch), told)
    states = tuple(_states(model, how, against_peft=against_peft))
    if attached_here is not None:
        notes = (*notes, f"with {attached_here.words} attached for this")
    autocast = None if context.autocast_dtype == "float32" else context.autocast_dtype
    return MemoryReport(
        name, facts.summary(), (batch, seq_len), plan, autocast, states, notes, launch.words, is_supplied(described(model))
    )


@dataclass(frozen=True, slots=True)
class _How:
    """What all states of a measurement share."""

    context: TrainingContext
    lora: Lora | None
    plan: StepPlan
    launch: Launch
    beside: BesideSteps
    told: Callable[[str], None] | None
    known: dict[Any, dict[Any, Any]] = field(default_factory=dict)
    """Steps that ran, by what decides the bytes of a model: states that are alike share theirs."""


def _states(model: Any, how: _How, *, against_peft: bool) -> Iterator[StateMemory]:
    """Yield the memory of each state of a model. Unsafe fixes are a state of their own where they give back memory."""
    for state, prepare in PREPARATIONS.items():
        if state == PEFT and not against_peft:
            continue
        try:
            twin = prepared_twin(model, prepare, how.context, how.lora)
        except KbitlintError:
            raise
        except Exception as error:  # noqa: BLE001  # PEFT's prepare refuses some models, which is a result
            yield StateMemory(state, {}, 0, 0, {}, one_line(error))
            continue
        if twin is not None:
            yield _measured(state, twin, how)


def _measured(state: str, twin: Any, how: _How) -> StateMemory:
    """Return the memory of one state. The peak with checkpointing is told first."""
    from kbitlint.model.memory.ranks import Rank, units_of
    from kbitlint.model.memory.stacks import mark_of
    from kbitlint.model.memory.step_memory import StepMeter
    from kbitlint.model.memory.tensor_parallel import split

    if how.launch.strategy == "tp":
        twin = split(twin, how.launch.ranks)
    rank = None if how.launch.strategy == "single" else Rank(how.launch, units_of(twin))
    first, known = not how.known, how.known.setdefault(mark_of(twin), {})
    meter = StepMeter(twin, known=known)
    others = how.beside.others
    if first and how.told is not None:
        step = meter.measure(state, how.context, how.plan, modes=(ON,), rank=rank, beside=others).steps.get(ON)
        if step is not None:
            how.told(f"{state}, {ON}: {size(step.peak)}, {size(on_card(step.peak))} on the card")
    found = meter.measure(state, how.context, how.plan, rank=rank, beside=others)
    return dataclasses.replace(found, phases=tuple(how.beside.phases(twin, how.context, how.plan, found, rank)))


#: the file of a checkpoint, and of an adapter
AS_IT_IS, PEFT, FIXED, UNSAFE = "as it is", "PEFT's prepare", "kbitlint's fix", "unsafe fixes"


def prepared_twin(
    model: Any, prepare: Callable[[Any, TrainingContext], bool] | None, context: TrainingContext, lora: Lora | None
) -> Any:
    """Return a copy of a model without weights, prepared in one way and with a LoRA. None if that way changes nothing.

    Args:
        model: The model, which is only read.
        prepare: One of ``PREPARATIONS``.
        context: How it will be trained.
        lora: The LoRA to attach; None attaches none.
    """
    from kbitlint.model.trace.twin import twin_of

    twin: Any = twin_of(model)
    if prepare is not None and not _as_before_adapters(twin, prepare, context):
        return None
    return twin if lora is None else attached(twin, lora)


def _as_before_adapters(twin: Any, prepare: Callable[[Any, TrainingContext], bool], context: TrainingContext) -> bool:
    """Prepare the base of a model as if its adapters were attached later: their trainable parameters stay trainable.

    Return whether the preparation applies to the model.
    """
    from kbitlint.model.inspect.walk import collect, named_modules
    from kbitlint.model.layers.adapters import base_of

    added = {parameter.path for parameter in collect(twin).parameters if parameter.adapter and parameter.requires_grad}
    applies = prepare(base_of(twin), context)
    for path, module in named_modules(twin):
        for name, parameter in module.named_parameters(recurse=False):
            if (f"{path}.{name}" if path else name) in added:
                parameter.requires_grad = True
    return applies


def _peft_prepared(base: Any, _: TrainingContext) -> bool:
    peft = load_peft("the comparison with PEFT's prepare")
    peft.prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs={"use_reentrant": False})
    return True


def _fixed(base: Any, context: TrainingContext) -> bool:
    fix_model(base, registry.select((), ()), context, Safety.SAFE, trace=False)
    return True


def _narrowed(base: Any, context: TrainingContext) -> bool:
    """Apply the unsafe fixes too, if one of them gives back memory. Return whether one does."""
    if not gives_back(base, context):
        return False
    fix_model(base, registry.select((), ()), context, Safety.UNSAFE, trace=False)
    return True


def gives_back(base: Any, context: TrainingContext) -> bool:
    """Return whether an unsafe fix gives back memory of a base model, as packed experts do. The model is only read."""
    violations = engine.run(registry.select((), ()), {Surface.MODEL: _facts_of(base)}, context).violations
    unsafe = [v.fix for v in violations if v.fix is not None and v.fix.safety is Safety.UNSAFE]
    return any(fix.adds_bytes < 0 for fix in unsafe)


def _facts_of(base: Any) -> ModelFacts:
    from kbitlint.model.inspect.walk import collect

    return collect(base)


#: state -> how a copy without weights gets there
PREPARATIONS: dict[str, Callable[[Any, TrainingContext], bool] | None] = {
    AS_IT_IS: None,
    PEFT: _peft_prepared,
    FIXED: _fixed,
    UNSAFE: _narrowed,
}


def plan_of(
    context: TrainingContext, optimizer: str | None, loss: str | None, accumulation: int | None, *more: Any
) -> StepPlan:
    """Return the plan of a step. The context gives what is left open.

    Args:
        context: The context of the training.
        optimizer: A name of ``TrainingArguments.optim``; None for that of the context, or ``adamw``.
        loss: ``full``, ``fused`` or ``kept``; None for that of the context, or ``full``.
        accumulation: Batches before each step of the optimizer; None for that of the context, or 1.
        *more: ``every`` and ``attention`` of the plan.

    Raises:
        KbitlintError: One of them is wrong.
    """
    name = optimizer or optimizers.known(context.optimizer) or "adamw"
    optimizers.find(name)
    every, attention = more
    batches = accumulation if accumulation is not None else context.accumulation or 1
    return StepPlan(name, every, loss_named(loss or context.loss or "full"), batches, attention)


def memory_of(opened: OpenTarget, options: Options, shape: tuple[int | None, int | None], **chosen: Any) -> MemoryReport:
    """Return what one training step of an open target takes.

    Args:
        opened: The target.
        options: As for ``measurable``.
        shape: As for ``measurable``.
        **chosen: As for ``budget_of``: ``lora``, ``plan``, ``launch``, ``told``.

    Raises:
        TargetError: The target holds no model, or is a function that must not run.
    """
    from kbitlint.model.isolation import quiet

    model, context = measurable(opened, options, shape)
    with quiet(), opened.confined():
        return budget_of(model, context, named=(opened.target.text, opened.notes), live=opened.live, **chosen)
