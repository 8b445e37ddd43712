"""Rule KB575: clipped-after-step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class ClippedAfterStep(Rule):
    """Gradients are clipped after the step that has used them.

    ## What it does

    In a loop of the script, reports `clip_grad_norm_` or `clip_grad_value_` behind the step of the optimizer, where the
    gradients are cleared next and nothing clips them before the step.

    ## Why is this bad?

    The clip changes `.grad`, which the step has read and `zero_grad` drops: `max_grad_norm` does nothing.

    ## Example

    `optimizer.step()`, then `clip_grad_norm_(params, 0.3)`, then `optimizer.zero_grad()`.

    ## Fix

    Clip between the backward pass and the step.

    ## Fix safety

    Display only: it changes the length of the steps.

    ## References

    - https://github.com/pytorch/pytorch/issues/309
    """

    meta: ClassVar[Meta] = Meta(
        code="KB575",
        slug="clipped-after-step",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each clip that comes too late."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.LATE_CLIP:
                yield self.violation(
                    "the gradients are clipped after the step that has used them, and cleared next: the clip does nothing",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"function": fault.name},
                    fix=Fix("clip between the backward pass and the step", Safety.DISPLAY),
                )
