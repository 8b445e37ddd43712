"""One training step of a model without its weights: forward and backward on tensors that have no contents.

The step runs on a twin of the model (``kbitlint.model.trace.twin``), so the model is untouched. It takes a second for 80
layers, needs neither GPU nor memory, and shows what attributes cannot: which parameters the loss reaches, which kernels
refuse their dtypes, what is kept for the backward pass.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from kbitlint.context import TrainingContext
from kbitlint.facts.layers import short_name
from kbitlint.facts.trace import Cut, GradientFacts, PackedReadFacts, RefusalFacts, SavedFacts, TraceFacts
from kbitlint.model.inspect.walk import collect, named_modules
from kbitlint.model.isolation import seeded
from kbitlint.model.layers import checkpointing, experts
from kbitlint.model.trace.float32_modules import float32_modules
from kbitlint.model.trace.gradients import why_cut
from kbitlint.model.trace.step import StepSettings, UntraceableError, runnable, step_of
from kbitlint.model.trace.twin import twin_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from kbitlint.facts.model import ModelFacts
    from kbitlint.model.trace.ledger import Refusal
    from kbitlint.model.trace.recorder import ExpectedGradient, StepRecorder

__all__ = ["UntraceableError", "trace"]


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
    inner = runnable(model)
    how = StepSettings(context, device, batch, seq_len, facts, virtual=bool(facts.quantized) and not facts.has_adapters)
    traced = _traced(inner, how)
    if traced.refusals and context.autocast_dtype is None:
        in_region = dataclasses.replace(how, context=dataclasses.replace(context, autocast_dtype="bfloat16"))
        try:
            again = _traced(inner, in_region)
        except UntraceableError:
            again = traced
        traced = dataclasses.replace(traced, absorbed=not again.refusals and again.failure is None)
    if traced.refusals and not any(norm.promotes for norm in facts.norms):  # those are put right first
        with seeded():
            found = float32_modules(inner, how, [refusal.path for refusal in traced.refusals])
        traced = dataclasses.replace(traced, float32_modules=found)
    return dataclasses.replace(traced, seconds=time.perf_counter() - start)


def _traced(inner: nn.Module, how: StepSettings) -> TraceFacts:
    """What one step shows, without asking what else would make it run."""
    with seeded():
        twin = twin_of(inner)
        step, watched, end = step_of(twin, how)
        grown = experts.new_parametrizations(named_modules(inner), named_modules(twin))
        gradients = tuple(_gradients(step, watched)) if end.has_graph else ()
        if any(gradient.cut is not None and gradient.runs and not gradient.reentrant for gradient in gradients):
            lost = _lost_inherently(inner, how)
            gradients = tuple(
                dataclasses.replace(gradient, inherent=gradient.path in lost and _is_library_code(step, gradient))
                for gradient in gradients
            )
    ledger = step.ledger
    return TraceFacts(
        model=how.facts,
        device=how.device,
        autocast=how.context.autocast_dtype,
        batch=(how.batch, how.seq_len),
        gradients=gradients,
        refusals=tuple(_refusal(refusal) for refusal in ledger.refusals.values()),
        packed_reads=tuple(PackedReadFacts(path, reader, name) for (path, reader), name in ledger.packed_reads.items()),
        layers=tuple(step.layers.values()),
        promotions=tuple(step.promotions.values()),
        checkpoint_calls=tuple(step.passage.checkpoint_calls),
        saved=tuple(SavedFacts(path, nbytes) for path, nbytes in step.saved.items()),
        called=frozenset(step.passage.gives_grad),
        guesses=tuple(sorted(ledger.guesses.items())),
        grown=grown,
        failure=end.failure,
        failed_at=end.module,
    )


def _lost_inherently(inner: nn.Module, how: StepSettings) -> frozenset[str]:
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
        step, watched, end = step_of(twin, plain)
    except UntraceableError:
        return frozenset()
    return frozenset(gradient.path for gradient in _gradients(step, watched) if not gradient.arrives and end.has_graph)


# -------------------------------------------------------------------------------------------------- the answers


def _gradients(step: StepRecorder, watched: list[ExpectedGradient]) -> Iterator[GradientFacts]:
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


def _class_at(step: StepRecorder, path: str) -> str:
    """The module that defines the class of what stands at a path."""
    return str(type(step.modules.get(path)).__module__)


def _adapted_layer(step: StepRecorder, path: str) -> str:
    """The layer that an adapter is attached to, for places inside the adapter; the path itself elsewhere."""
    around = [path.rsplit(".", count)[0] for count in range(path.count(".") + 1)]
    return next((place for place in reversed(around) if _class_at(step, place).startswith("peft.")), path)


def _is_library_code(step: StepRecorder, gradient: GradientFacts) -> bool:
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
