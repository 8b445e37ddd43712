"""Rule KB576: gradients-never-cleared."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class GradientsNeverCleared(Rule):
    """A loop that takes steps, in a file that never clears gradients.

    ## What it does

    Reports the step of a loop that goes backward and takes a step, where the file has no `zero_grad`, sets no `.grad` to None
    and leaves neither to an engine such as DeepSpeed or Lightning.

    ## Why is this bad?

    Each backward pass adds to the gradients of all batches before it: the steps follow a sum that only grows, and diverge.

    ## Example

    `loss.backward()`, then `optimizer.step()`, then the next batch.

    ## Fix

    Call `optimizer.zero_grad()` after the step.

    ## Fix safety

    Display only: it changes what is learned.

    ## References

    - https://github.com/pytorch/tutorials/issues/156
    """

    meta: ClassVar[Meta] = Meta(
        code="KB576",
        slug="gradients-never-cleared",
        severity=Severity.ERROR,
        consequence=Consequence.UNSTABLE,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each loop whose gradients only grow."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.NEVER_CLEARED:
                yield self.violation(
                    f"{fault.name} takes steps, and nothing clears the gradients: each step sees the sum of all batches",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"step": fault.name},
                    fix=Fix("call zero_grad after the step", Safety.DISPLAY),
                )
