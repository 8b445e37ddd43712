"""Rule KB659: schedule-before-step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class ScheduleBeforeStep(Rule):
    """A loop moves the learning rate before the optimizer takes its step.

    ## What it does

    Reports `scheduler.step()` between the backward pass and `optimizer.step()` of the same round.

    ## Why is this bad?

    PyTorch warns at the first round: the first value of the schedule is skipped, and each step uses that of the next one. With
    a warm-up from 0, the first step is not the one of length 0 that the schedule means.

    ## Example

    `loss.backward()`, then `scheduler.step()`, then `optimizer.step()`.

    ## Fix

    Call `optimizer.step()` first.

    ## Fix safety

    Display only: it changes the learning rate of each step.

    ## References

    - https://github.com/pytorch/pytorch/issues/20124
    """

    meta: ClassVar[Meta] = Meta(
        code="KB659",
        slug="schedule-before-step",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each schedule that runs ahead."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.EARLY_SCHEDULE:
                yield self.violation(
                    f"{fault.name}.step runs before {fault.owner}.step: the first learning rate is skipped",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"schedule": fault.name, "optimizer": fault.owner},
                    fix=Fix(f"call {fault.owner}.step() first", Safety.DISPLAY),
                )
