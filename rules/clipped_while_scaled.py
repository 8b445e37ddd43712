"""Rule KB565: clipped-while-scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class ClippedWhileScaled(Rule):
    """Gradients are clipped while they are multiplied by the scale of the loss.

    ## What it does

    In a loop of the script, reports `clip_grad_norm_` or `clip_grad_value_` between `scaler.scale(loss).backward()` and
    `scaler.step(optimizer)`, where the file never calls `scaler.unscale_(optimizer)`.

    ## Why is this bad?

    `GradScaler` multiplies the loss by 65536 at first (torch/amp/grad_scaler.py, `init_scale`). A limit of 1.0 on these
    gradients is a limit of 1/65536 on the true ones: with SGD, steps are tens of thousands of times too small. With Adam,
    each step has the same length of gradient, which comes near its epsilon.

    ## Example

    `scaler.scale(loss).backward()`, then `clip_grad_norm_(params, 1.0)`, then `scaler.step(optimizer)`.

    ## Fix

    Call `scaler.unscale_(optimizer)` before the clip.

    ## Fix safety

    Display only: it changes the length of the steps.

    ## References

    - https://github.com/rwth-i6/returnn/issues/1590
    """

    meta: ClassVar[Meta] = Meta(
        code="KB565",
        slug="clipped-while-scaled",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each clip of gradients that a scaler has multiplied."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.SCALED_CLIP:
                yield self.violation(
                    f"the gradients are clipped while {fault.owner} has multiplied them, by 65536 at first",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"scaler": fault.owner},
                    fix=Fix(f"call {fault.owner}.unscale_(optimizer) before the clip", Safety.DISPLAY),
                )
