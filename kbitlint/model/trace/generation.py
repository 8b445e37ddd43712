"""The generation of a Trainer between its steps, which runs the forward of the class and not the one of the loss.

TRL's trainers give a model a forward whose loss reads the weight of the head. The head's own forward then runs in the
generation alone, on what the last norm returns.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.context.passes import passes_of
from kbitlint.model.batch import FUSED, training_batch
from kbitlint.model.trace.forward import ForwardPasses
from kbitlint.model.trace.step import UntraceableError
from kbitlint.model.trace.twin import twin_of

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.facts.trace import TraceFacts
    from kbitlint.model.trace.step import StepSettings


def with_generation(inner: nn.Module, how: StepSettings, traced: TraceFacts, trainer: Any) -> TraceFacts:
    """Return the facts of a step with the dtypes that kernels refuse in the generation of its Trainer.

    Args:
        inner: The model.
        how: The settings of the step.
        traced: The facts of the step. One that fails ends a run as well.
        trainer: The Trainer that holds the model, or None.
    """
    if trainer is None or traced.refusals or traced.failure is not None or passes_of(trainer).generation is None:
        return traced
    passes = ForwardPasses(twin_of(inner), how.facts, how.device, how.context.autocast_dtype)
    batch = training_batch(passes.twin, "cpu", how.batch, how.seq_len, how.plan)
    if batch.pop(FUSED, None) is None:  # the step has run the same forward
        return traced
    batch.pop("labels", None)
    try:
        passes.run(lambda twin: twin(**batch))
    except UntraceableError:
        return traced
    return dataclasses.replace(traced, refusals=passes.step.ledger.refused())
