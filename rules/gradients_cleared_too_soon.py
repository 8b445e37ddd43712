"""Rule KB717: gradients-cleared-too-soon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Act, Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.own_loops import OwnLoop
    from kbitlint.facts.source import SourceFacts

#: what reads or sets the gradients of parameters, ``torch.autograd.grad`` too
_OF_ITS_OWN = re.compile(r"\.grad\b")


class GradientsClearedTooSoon(Rule):
    """A loop whose gradients never change a parameter.

    ## What it does

    Reads the loops that a script writes itself. Reports a loop that clears the gradients between the backward pass and the
    optimizer's step. Reports a loop that computes and clears gradients in a file without any step, and one that steps in a
    file without any backward pass, such as a `training_step` of the script's own Trainer. Reports a clip to a norm of
    zero, which makes every gradient zero. A loop that does so in some rounds
    only is not reported, and neither is a file that reads `.grad`, because it may change the parameters by hand.

    ## Why is this bad?

    An optimizer skips parameters without a gradient. The loss is printed, nothing fails, and no adapter changes.

    ## Example

    `loss.backward(); optimizer.zero_grad(); optimizer.step()`.

    ## Fix

    Call `loss.backward()`, `optimizer.step()` and `optimizer.zero_grad()` in this order.

    ## Fix safety

    Display only: the order of the loop is the user's.

    ## References

    - https://github.com/patrickloeber/pytorchTutorial/issues/19
    - https://github.com/pytorch/tutorials/issues/156
    """

    meta: ClassVar[Meta] = Meta(
        code="KB717",
        slug="gradients-cleared-too-soon",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such loop."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.CLIPS_TO_ZERO:
                yield self.violation(
                    f"{fault.name} with a limit of 0 makes every gradient zero",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    fix=Fix("clip to a positive norm, such as 1.0, or not at all", Safety.DISPLAY),
                )
        does = {one.act for loop in source.own_loops for one in loop.acts}
        for loop in source.own_loops:
            if (found := _fault(source, loop, does)) is not None:
                message, line, name = found
                fix = Fix("backward first, then the step, then clear the gradients", Safety.DISPLAY)
                yield self.violation(message, source.at_line(line, name), surface=Surface.SOURCE, fix=fix)


def _fault(source: SourceFacts, loop: OwnLoop, does: set[Act]) -> tuple[str, int, str] | None:
    """Return (message, line, name) of the fault that keeps gradients from the parameters; None without one."""
    cleared = loop.cleared
    if cleared is not None:
        return "the gradients are cleared before the optimizer uses them", cleared.line, f"{cleared.name}.zero_grad"
    acts = {one.act: one for one in loop.acts}
    if _OF_ITS_OWN.search(source.text):  # a file that reads gradients may change the parameters by hand
        return None
    if Act.CLEAR in acts and Act.BACKWARD in acts and Act.STEP not in does and ".step(" not in source.text:
        return "the gradients are cleared, and no optimizer ever takes a step", acts[Act.BACKWARD].line, "backward"
    if Act.CLEAR in acts and Act.STEP in acts and Act.BACKWARD not in does and "backward" not in source.text:
        return "the optimizer takes steps, and no backward pass computes gradients", acts[Act.STEP].line, acts[Act.STEP].name
    return None
