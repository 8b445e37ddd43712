"""Rule KB660: skipped-scaler."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class SkippedScaler(Rule):
    """A loop goes backward past the gradient scaler of its Accelerator.

    ## What it does

    Reports `loss.backward()` in a script whose `Accelerator(mixed_precision="fp16")` prepares the optimizer, and never goes
    backward itself.

    ## Why is this bad?

    The prepared optimizer steps through a `GradScaler`, which has scaled no loss: its first step raises an AssertionError:
    "This may indicate your script did not use scaler.scale(loss)".

    ## Example

    `loss.backward()` behind `model, optimizer = accelerator.prepare(model, optimizer)`.

    ## Fix

    Call `accelerator.backward(loss)`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/accelerate/issues/507
    """

    meta: ClassVar[Meta] = Meta(
        code="KB660",
        slug="skipped-scaler",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each loop that scales no loss."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.SKIPPED_SCALER:
                yield self.violation(
                    f"the loss goes backward past {fault.owner}, whose scaler steps the optimizer: the first step raises",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"accelerator": fault.owner},
                    fix=Fix(f"call {fault.owner}.backward(loss)", Safety.DISPLAY),
                )
