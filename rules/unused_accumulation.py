"""Rule KB566: unused-accumulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.facts.values import UNKNOWN
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call, Value


class UnusedAccumulation(Rule):
    """An Accelerator is to accumulate gradients, and the loop takes a step with each batch.

    ## What it does

    Reports `Accelerator(gradient_accumulation_steps=n)`, or a plugin with `num_steps=n`, in a script whose loop goes
    backward and takes a step in every round, without `accelerator.accumulate(model)`.

    ## Why is this bad?

    Only `accumulate` counts batches and holds the optimizer back. Without it, each batch is a step, and
    `accelerator.backward` divides each loss by n all the same (accelerate 1.15, accelerator.py): batches and gradients
    are n times smaller than the script says.

    ## Example

    `for batch in loader: loss = model(**batch).loss; accelerator.backward(loss); optimizer.step(); optimizer.zero_grad()`.

    ## Fix

    Put the round into `with accelerator.accumulate(model):`.

    ## Fix safety

    Display only: the number of steps and of the schedule changes with it.

    ## References

    - https://github.com/huggingface/accelerate/issues/963
    """

    meta: ClassVar[Meta] = Meta(
        code="KB566",
        slug="unused-accumulation",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each Accelerator that never accumulates."""
        lines = {call.span.line: call for call in source.calls_of("accelerate.Accelerator")}
        for fault in source.loop_faults:
            steps = _steps(lines[fault.line]) if fault.kind is Oversight.NO_ACCUMULATION and fault.line in lines else 1
            if steps is not UNKNOWN and (not isinstance(steps, int) or steps < 2):
                continue
            many = "its number of steps" if steps is UNKNOWN else str(steps)
            yield self.violation(
                f"{fault.name} runs with each batch, without {fault.owner}.accumulate: nothing accumulates, and "
                f"{fault.owner}.backward divides each loss by {many}",
                source.at_line(fault.line, "Accelerator"),
                surface=Surface.SOURCE,
                evidence={"steps": "unknown" if steps is UNKNOWN else str(steps)},
                fix=Fix(f"run each round in {fault.owner}.accumulate(model)", Safety.DISPLAY),
            )


def _steps(accelerator: Call) -> Value:
    """Return the number of batches that an Accelerator is to accumulate; UNKNOWN if the script takes it from elsewhere."""
    plugin = accelerator.within("gradient_accumulation_plugin")
    if plugin is not None:
        return plugin.value("num_steps", 1)
    given = accelerator.argument("gradient_accumulation_steps")
    return 1 if given is None else given.value
