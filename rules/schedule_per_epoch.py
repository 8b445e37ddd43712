"""Rule KB735: schedule-per-epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class SchedulePerEpoch(Rule):
    """A schedule that counts steps is moved by Lightning once for each epoch.

    ## What it does

    Reports a `configure_optimizers` that returns a schedule made for a number of steps, such as
    `get_linear_schedule_with_warmup`, without `"interval": "step"`.

    ## Why is this bad?

    Lightning's default interval is the epoch. A warm-up of 500 steps then takes 500 epochs: the learning rate stays near 0, and
    the adapters hardly learn. The loss curve looks like that of a hard task.

    ## Example

    `return {"optimizer": optimizer, "lr_scheduler": get_cosine_schedule_with_warmup(optimizer, 100, 3000)}`.

    ## Fix

    Return `{"scheduler": schedule, "interval": "step"}` under `lr_scheduler`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/Lightning-AI/pytorch-lightning/issues/17604
    """

    meta: ClassVar[Meta] = Meta(
        code="KB735",
        slug="schedule-per-epoch",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each schedule without an interval."""
        for fault in source.object_faults:
            if fault.kind == "per epoch":
                yield self.violation(
                    f"{fault.name} counts steps, and Lightning moves the schedule once for each epoch",
                    source.at_line(fault.line, "lr_scheduler"),
                    surface=Surface.SOURCE,
                    evidence={"schedule": fault.name},
                    fix=Fix('return {"scheduler": schedule, "interval": "step"}', Safety.DISPLAY),
                )
