"""The trace of a model: the facts of one training step, run forward and backward on tensors without contents.

The step runs on a twin (``kbitlint.model.trace.twin``), so the model stays unchanged. It needs no GPU and no memory for
weights, and takes about one second for 80 layers. It finds three things that attributes cannot show. These are missing
gradients, kernels that refuse their dtypes, and the bytes saved for the backward pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from typing import TYPE_CHECKING, Any

from kbitlint.context import TrainingContext
from kbitlint.facts.chosen import is_chosen
from kbitlint.facts.trace import PackedReadFacts, SavedFacts, TraceFacts
from kbitlint.model.inputs.fitting import has_training_step
from kbitlint.model.inputs.structure import described
from kbitlint.model.inspect.tensor_hooks import without_gradient
from kbitlint.model.inspect.walk import collect, named_modules
from kbitlint.model.isolation import seeded
from kbitlint.model.layers import checkpointing, experts
from kbitlint.model.layers.replaced import replaced_layers
from kbitlint.model.trace.arrivals import gradients_of, is_library_code, recast_of
from kbitlint.model.trace.beside import written
from kbitlint.model.trace.fitting import is_of_adapter, mixes_integers, plan_for
from kbitlint.model.trace.float32_modules import float32_modules, float32_outputs
from kbitlint.model.trace.generation import with_generation
from kbitlint.model.trace.raising import raising
from kbitlint.model.trace.step import StepEnd, StepSettings, UntraceableError, runnable, step_of
from kbitlint.model.trace.trainer_loss import trainer_loss
from kbitlint.model.trace.twin import twin_of

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.facts.model import ModelFacts
    from kbitlint.model.trace.recorder import ExpectedGradient, StepRecorder

__all__ = ["UntraceableError", "trace"]


#: Config entries without which a class cannot make the inputs of its decoder from labels.
_SPECIAL_TOKEN = re.compile(r"\b(pad|decoder_start|bos|eos)_token_id\b")


def trace(
    model: nn.Module,
    context: TrainingContext | None = None,
    *,
    device: str | None = None,
    batch: int = 2,
    seq_len: int = 16,
    facts: ModelFacts | None = None,
    trainer: Any = None,
) -> TraceFacts:
    """Run one training step without weights, and return its facts. The model is only read.

    If a quantized model has no adapters and nobody chose what trains, all its parameters are frozen for the trace. Each
    quantized layer then holds a trainable scalar in place of its adapter.

    If kernels refuse their dtypes and the context does not set autocast, the step runs again under bfloat16 autocast. If they
    refuse, the facts also name modules that let the step run once they compute in float32.

    Args:
        model: A model with or without adapters, live or on the meta device.
        context: The training context: autocast, gradient checkpointing, training mode. None is an empty context.
        device: The device whose kernels are simulated, ``cpu`` or ``cuda``. None means ``cpu`` if a parameter is on the CPU,
            and ``cuda`` otherwise.
        batch: Sequences in the batch.
        seq_len: Tokens in each sequence.
        facts: Facts of a walk over this model. None walks over the model first.
        trainer: The Trainer that holds the model. A step on its own loss and first batch runs too, and its generation.

    Raises:
        UntraceableError: The step needs values or kernels that do not exist without weights.
        TwinError: The model cannot be copied.
    """
    start = time.perf_counter()
    context = context or TrainingContext()
    facts = facts or collect(model)
    device = device or ("cpu" if any(p.device == "cpu" for p in facts.parameters) else "cuda")
    inner = runnable(model)
    how = StepSettings(context, device, batch, seq_len, facts, virtual=_needs_adapters(facts))
    wanted = not how.virtual and context.sets_training_mode and context.beta != 0  # a factor of 0 has a rule of its own
    loss = trainer_loss(trainer, context.batch_size) if wanted else None
    try:
        traced, how = _traced_on_a_batch_that_runs(inner, how)
    except UntraceableError:
        if loss is None:
            raise
        how = dataclasses.replace(how, loss=loss)
        traced = _with_loss(inner, how, None)
    else:
        traced = traced if loss is None else _with_loss(inner, dataclasses.replace(how, loss=loss), traced)
        traced = with_generation(inner, how, traced, trainer)
    if traced.refusals and context.autocast_dtype is None:
        in_region = dataclasses.replace(how, context=dataclasses.replace(context, autocast_dtype="bfloat16"))
        try:
            again = _traced(inner, in_region)
        except UntraceableError:
            again = traced
        traced = dataclasses.replace(traced, absorbed=not again.refusals and again.failure is None)
    # a norm that returns float32 has a fix of its own, which is applied first
    if traced.refusals and not any(norm.promotes for norm in facts.norms):
        with seeded():
            found = float32_modules(inner, how, [refusal.path for refusal in traced.refusals])
            outputs = float32_outputs(inner, how) if not traced.refusals[0].path else ()
        traced = dataclasses.replace(traced, float32_modules=found, float32_outputs=outputs)
    return dataclasses.replace(traced, seconds=time.perf_counter() - start)


def _needs_adapters(facts: ModelFacts) -> bool:
    """Return whether adapters are still to be attached: the model is quantized, has none, and nobody chose what trains."""
    return bool(facts.quantized) and not facts.has_adapters and not is_chosen(facts)


def _with_loss(inner: nn.Module, how: StepSettings, before: TraceFacts | None) -> TraceFacts:
    """Return the facts of a step with what a Trainer's own loss adds: that it raises, or that nothing learns from it.

    Args:
        inner: The model.
        how: The settings of the step, with the loss.
        before: The facts of the step on the model's own loss, or None if it does not run.

    Raises:
        UntraceableError: Neither step runs.
    """
    if before is not None and (before.failure is not None or before.refusals):
        return before
    try:
        found = _traced(inner, how)
    except UntraceableError as error:
        try:
            found = raising(inner, how, error)
        except UntraceableError:
            if before is None:
                raise
            return before
    if before is None:
        return found
    if found.raises or found.refusals:
        return dataclasses.replace(before, failure=found.failure, failed_at=found.failed_at, refusals=found.refusals)
    learns = any(one.arrives and not one.zeroed_by for one in found.gradients)
    return before if learns else dataclasses.replace(before, failure=found.failure, gradients=found.gradients)


def _traced_on_a_batch_that_runs(inner: nn.Module, how: StepSettings) -> tuple[TraceFacts, StepSettings]:
    """Return the facts of one step, and its settings. If the documented batch does not run, a corrected one is tried.

    Without such a batch, a dtype that the step refuses before it raises is still a fact.

    Raises:
        UntraceableError: No correction leads to a batch that runs, and no dtype is refused.
    """
    try:
        if has_training_step(described(inner)) and (plan := plan_for(inner, how.device, how.batch, how.seq_len)) is not None:
            how = dataclasses.replace(how, plan=plan)
        return _traced(inner, how), how
    except UntraceableError as error:
        reason = error
        # labels alone need the special tokens that a config lacks; a batch with decoder inputs would hide it
        if is_of_adapter(error.__cause__) or _SPECIAL_TOKEN.search(str(error.__cause__)):
            with contextlib.suppress(UntraceableError):
                return raising(inner, how, error), how
    plan = plan_for(inner, how.device, how.batch, how.seq_len)
    if plan is not None and plan != how.plan:
        how = dataclasses.replace(how, plan=plan)
        try:
            return _traced(inner, how), how
        except UntraceableError as error:
            reason = error
    if reason.refusals:
        ended = dataclasses.replace(how, refusal_ends=True)
        return _traced(inner, ended), ended
    return raising(inner, how, reason), how


def _traced(inner: nn.Module, how: StepSettings) -> TraceFacts:
    """Return the facts of one step, without the search for modules that need float32.

    Raises:
        UntraceableError: The step raises, or its batch holds integers where a kernel takes none.
    """
    with seeded():
        twin, step, watched, end = _settled(inner, how)
        if any(map(mixes_integers, step.ledger.refusals.values())):
            raise UntraceableError("no training step without weights: a kernel takes no integers of the made batch")
        grown = experts.new_parametrizations(named_modules(inner), named_modules(twin))
        gradients = tuple(gradients_of(step, watched)) if end.has_graph else ()
        if any(gradient.cut is not None and gradient.runs and not gradient.reentrant for gradient in gradients):
            lost = _lost_inherently(inner, how)
            gradients = tuple(
                dataclasses.replace(gradient, inherent=gradient.path in lost and is_library_code(step, gradient))
                for gradient in gradients
            )
    if hooked := frozenset(without_gradient(inner)):
        gradients = tuple(
            dataclasses.replace(one, zeroed_by=one.path, zeroing="hook") if one.arrives and one.path in hooked else one
            for one in gradients
        )
    ledger = step.ledger
    cast = end.failure is None and not (ledger.mixes_packed or ledger.refusals)
    return TraceFacts(
        model=how.facts,
        device=how.device,
        autocast=how.context.autocast_dtype,
        batch=(how.batch, how.seq_len),
        gradients=gradients,
        refusals=ledger.refused(),
        packed_reads=tuple(PackedReadFacts(path, reader, name, cast) for (path, reader), name in ledger.packed_reads.items()),
        layers=tuple(step.layers.values()),
        promotions=tuple(step.promotions.values()),
        checkpoint_calls=tuple(step.passage.checkpoint_calls),
        saved=tuple(SavedFacts(path, nbytes) for path, nbytes in step.saved.items()),
        called=frozenset(step.passage.gives_grad),
        guesses=tuple(sorted(ledger.guesses.items())),
        grown=grown,
        replaced=tuple(one for one, _ in replaced_layers(inner) if one.place in step.replaced) if step.replaced else (),
        failure=end.failure,
        failed_at=end.module,
        recast=tuple(recast_of(watched, how.facts)),
        cutting=tuple(step.cutting),
        undefined_loss=ledger.undefined_loss,
        unregistered=tuple(path for path, tensor in step.strays.items() if tensor.grad is not None),
        written=tuple(written(step.buffers)) if how.facts.adapters else (),
    )


def _settled(inner: nn.Module, how: StepSettings) -> tuple[nn.Module, StepRecorder, list[ExpectedGradient], StepEnd]:
    """Return the twin of a step, its record, the expected gradients and its end. See ``step_of``.

    A parameter of zeros counts as zero for as long as its own gradient is zero. If some of them move and others do not, the
    step runs again without those that move, until none of the rest does.
    """
    while True:
        twin = twin_of(inner)
        step, watched, end = step_of(twin, how)
        zeros = step.ledger.zeros
        stuck = frozenset(one.path for one in watched if one.path in zeros.starts and zeros.is_zero(one.parameter.grad))
        if not (end.has_graph and stuck and stuck != zeros.starts):
            zeros.starts_hold = end.has_graph and bool(stuck)
            return twin, step, watched, end
        how = dataclasses.replace(how, starts=stuck)


def _lost_inherently(inner: nn.Module, how: StepSettings) -> frozenset[str]:
    """Return the paths of parameters that receive no gradient even in the bare architecture.

    The step runs on a second twin without hooks, without checkpointing and without replaced forwards. A model may need them:
    modules that compute in float32 are such a fix. If the bare step fails, only checkpointing is off.
    """
    plain = dataclasses.replace(how, context=dataclasses.replace(how.context, gradient_checkpointing=None))
    for bare in (True, False):
        twin = twin_of(inner)
        _strip(twin, bare=bare)
        try:
            step, watched, end = step_of(twin, plain)
        except UntraceableError:
            continue
        if end.has_graph and not (bare and step.ledger.refusals):
            return frozenset(gradient.path for gradient in gradients_of(step, watched) if not gradient.arrives)
    return frozenset()


def _strip(twin: nn.Module, *, bare: bool) -> None:
    """Turn off checkpointing in a twin. Remove its hooks and replaced forwards as well if it shall be bare."""
    for module in twin.modules():
        if bare:
            module._forward_hooks.clear()  # noqa: SLF001  # torch has no public way to remove hooks without their handles
            module._forward_pre_hooks.clear()  # noqa: SLF001  # see above
            module.__dict__.pop("forward", None)
        if checkpointing.FLAG in module.__dict__:
            module.__dict__[checkpointing.FLAG] = False
