"""Rule KB588: loss-divided-twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class LossDividedTwice(Rule):
    """A loss is divided by the number of accumulated batches, and its Accelerator divides it again.

    ## What it does

    Reports a division by the number of batches in a loop whose `Accelerator` has `gradient_accumulation_steps`, and goes
    backward from the quotient.

    ## Why is this bad?

    `accelerator.backward` divides each loss by `gradient_accumulation_steps` itself (accelerate 1.15, accelerator.py). The
    gradients are smaller by that factor once more: a clip never applies, decay outweighs them, and small ones vanish in 16
    bits. A printed loss is smaller too.

    ## Example

    `accelerator.backward(loss / 8)` with `Accelerator(gradient_accumulation_steps=8)`.

    ## Fix

    Go backward from the loss as the model returns it.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/accelerate/issues/639
    """

    meta: ClassVar[Meta] = Meta(
        code="KB588",
        slug="loss-divided-twice",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each division that the Accelerator repeats."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.DIVIDES_TWICE:
                yield self.violation(
                    f"the loss is divided by {fault.name}, and {fault.owner}.backward divides it by the same number again",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"divisor": fault.name},
                    fix=Fix(f"leave the division to {fault.owner}.backward", Safety.DISPLAY),
                )
