"""Rule KB725: parameter-recast-under-ddp."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts


class ParameterRecastUnderDdp(Rule):
    """Trainable parameters that get another dtype in the first step, after DDP has registered them.

    ## What it does

    Runs a training step without weights, and compares the dtype of each trainable parameter before and after it. Reports
    those that change if the model trains under DDP. bitsandbytes causes it: `Linear4bit` and `Linear8bitLt` cast their own bias
    to the dtype in which they compute.

    ## Why is this bad?

    DDP hangs its reduction on the gradient accumulator of each parameter. torch makes a new accumulator for a parameter that
    gets data of another dtype, and DDP never hears of it. The gradients of such a bias are not averaged over the ranks.

    With `find_unused_parameters=False` the second step raises `Expected to have finished reduction in the prior iteration`: an
    error. Otherwise two ranks and more raise `Expected Float, got BFloat16` while they exchange gradients: an error too if the
    number of ranks is known, and a warning if it is not.

    ## Example

    `LoraConfig(bias="all")` after `prepare_model_for_kbit_training` on GPT-2, whose biases are float32 then, with
    `bnb_4bit_compute_dtype=torch.bfloat16`.

    ## Fix

    Leave the biases frozen (`bias="none"`), or give them the dtype of the computation before DDP wraps the model.

    ## Fix safety

    Display only: float32 biases lose fewer updates.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/nn/modules.py
    - https://github.com/pytorch/pytorch/blob/main/torch/csrc/autograd/variable.cpp
    """

    meta: ClassVar[Meta] = Meta(
        code="KB725",
        slug="parameter-recast-under-ddp",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )
    needs_strategy: ClassVar[bool] = True

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainable parameter whose dtype the step changes."""
        if context.strategy is not Strategy.DDP:
            return
        fails = context.waits_for_every_gradient or (context.world_size or 0) > 1
        for path, before, after in trace.recast:
            yield self.violation(
                f"the first step makes the trainable {before} parameter {after}, and DDP no longer averages its gradient",
                Location(path),
                surface=Surface.TRACE,
                severity=Severity.ERROR if fails else Severity.WARNING,
                evidence={"before": before, "after": after},
                fix=Fix(f"make it {after} before DDP wraps the model", Safety.DISPLAY),
            )
