"""Rule KB589: schedule-out-of-step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class ScheduleOutOfStep(Rule):
    """A schedule is moved at another pace than the one that its length counts.

    ## What it does

    Reports the step of a schedule in each round of a loop, where `num_training_steps` is divided by the number of
    accumulated batches: by hand, or inside `accumulate` without having been prepared. Reports the step of a schedule at the
    end of each epoch, where `num_training_steps` counts the batches of all epochs. Reports a `configure_optimizers` of
    Lightning that returns a schedule of steps without `"interval": "step"`: the default interval is the epoch.

    ## Why is this bad?

    Moved too often, the learning rate is zero after a fraction of the training, and the rest changes nothing. Moved once an
    epoch, it stays inside of its warm-up: with a linear one, the first epoch trains at a rate of zero.

    ## Example

    `scheduler.step()` beside `if (step + 1) % 8 == 0: optimizer.step()`, for `get_cosine_schedule_with_warmup(optimizer, 10,
    len(loader) // 8)`.

    ## Fix

    Move the schedule where the optimizer takes its step. For Lightning, return `{"scheduler": schedule, "interval": "step"}`
    under `lr_scheduler`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/accelerate/issues/963
    - https://github.com/Lightning-AI/pytorch-lightning/issues/17604
    """

    meta: ClassVar[Meta] = Meta(
        code="KB589",
        slug="schedule-out-of-step",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each step of a schedule at another pace."""
        for fault in source.loop_faults:
            if fault.kind in _WORDS:
                lightning = fault.kind is Oversight.EPOCH_SCHEDULE
                fix = 'return {"scheduler": schedule, "interval": "step"}' if lightning else _FIX
                yield self.violation(
                    f"{fault.name} {_WORDS[fault.kind]}",
                    source.at_line(fault.line, "lr_scheduler" if lightning else fault.name),
                    surface=Surface.SOURCE,
                    evidence={"pace": fault.kind.name.lower()},
                    fix=Fix(fix, Safety.DISPLAY),
                )


_FIX = "move the schedule where the optimizer takes its step"
_WORDS = {
    Oversight.EPOCH_SCHEDULE: "counts steps, and Lightning moves the schedule once for each epoch",
    Oversight.FAST_SCHEDULE: "runs with each batch, and the schedule counts steps of the optimizer: it ends too soon",
    Oversight.SLOW_SCHEDULE: "runs once in an epoch, and the schedule counts batches: the rate hardly leaves its start",
}
