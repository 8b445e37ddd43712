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
    """A loop goes past a gradient scaler, or uses it in another order than it allows.

    ## What it does

    Reports `loss.backward()` in a script whose `Accelerator(mixed_precision="fp16")` prepares the optimizer, and never goes
    backward itself. Reports a loop whose scaler is never updated, or takes the scale out in each round though only some
    take a step. A warning for an optimizer that steps by itself behind a loss that a scaler has multiplied.

    ## Why is this bad?

    The prepared optimizer steps through a `GradScaler`, which has scaled no loss: its first step raises an AssertionError:
    "This may indicate your script did not use scaler.scale(loss)". A second `step` or `unscale_` before an `update`
    raises a RuntimeError. An optimizer by itself steps with gradients that are 65,536 times too large, or infinite.

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
            elif fault.kind in _ORDER:
                message, fix = _ORDER[fault.kind]
                survives = fault.kind is Oversight.UNSCALED_STEP
                yield self.violation(
                    message.format(fault),
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    severity=Severity.WARNING if survives else None,
                    consequence=Consequence.TRAINS_WRONG if survives else None,
                    evidence={"scaler": fault.owner},
                    fix=Fix(fix.format(fault), Safety.DISPLAY),
                )


#: kind of fault -> its message and its fix
_ORDER = {
    Oversight.UNSCALED_STEP: (
        "{0.name} uses gradients of a loss that {0.owner} has multiplied, and no scaler takes the scale out",
        "step through the scaler: scaler.step(optimizer), or give the optimizer to accelerator.prepare",
    ),
    Oversight.NO_UPDATE: (
        "{0.owner} is never updated: its second step raises a RuntimeError",
        "call {0.owner}.update() behind {0.owner}.step(optimizer)",
    ),
    Oversight.UNSCALES_EACH: (
        "{0.owner}.unscale_ runs in each round, and its second call before a step raises a RuntimeError",
        "call {0.owner}.unscale_(optimizer) once, before the clip of the round that takes the step",
    ),
}
