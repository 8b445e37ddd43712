"""The memory that one step on a twin keeps. The step itself is in ``kbitlint.model.trace.step``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.isolation import seeded
from kbitlint.model.trace.step import StepSettings, runnable, step_of

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.model.trace.step import AllocationObserver


@dataclass(frozen=True, slots=True)
class StepCost:
    """The memory that one step on a twin keeps for its backward pass."""

    saved: dict[str, int]
    """Bytes saved for the backward pass, by the path of the module that saved them."""
    failure: str | None
    """The error in one line, or None if the step finished."""
    gradients: int
    """The number of parameters that received a gradient."""


def run_twin(  # noqa: PLR0913  # each is one setting of the step
    twin: nn.Module,
    context: TrainingContext,
    *,
    facts: ModelFacts,
    live: AllocationObserver,
    device: str = "cuda",
    keeps_outputs: bool = False,
    accumulated: bool = False,
    plan: Plan = DOCUMENTED,
) -> StepCost:
    """Run one step on a twin, and report each allocation to an observer. The twin cannot be used again.

    Args:
        twin: The copy of the model. Its own checkpointing settings decide, not those of the context.
        context: Autocast, batch size (default 1) and sequence length in tokens (default 2048).
        facts: Facts of a walk over the model.
        live: The observer. It receives the model's tensors, then each tensor that an operator returns, and the module that
            runs.
        device: The device whose kernels are simulated, ``cpu`` or ``cuda``.
        keeps_outputs: Whether the loop holds the model's outputs during the backward pass.
        accumulated: Whether an earlier batch left its gradients. The observer does not receive them.
        plan: How the batch differs from the documented one.

    Raises:
        UntraceableError: The step needs values or kernels that do not exist without weights.
    """
    context = dataclasses.replace(context, gradient_checkpointing=None)
    how = StepSettings(context, device, context.batch_size or 1, context.seq_len or 2048, facts, virtual=False)
    how = dataclasses.replace(how, keeps_outputs=keeps_outputs, plan=plan)
    if accumulated:
        for parameter in twin.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    with seeded():
        step, watched, end = step_of(runnable(twin), how, live)
    return StepCost(step.saved, end.failure, sum(one.parameter.grad is not None for one in watched))
