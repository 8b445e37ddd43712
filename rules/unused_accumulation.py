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
    from kbitlint.facts.own_loops import LoopFault
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call, Value


class UnusedAccumulation(Rule):
    """A loop is to accumulate gradients, and each step sees those of one batch.

    ## What it does

    Reports `Accelerator(gradient_accumulation_steps=n)`, or a plugin with `num_steps=n`, in a script whose loop goes
    backward and takes a step in every round, without `accelerator.accumulate(model)`. Reports `accumulate` of an
    Accelerator that is not told how many batches, beside a number of the file, an optimizer in it that was not prepared,
    and gradients that each round clears, though only some take a step.

    ## Why is this bad?

    Only `accumulate` counts batches and holds the optimizer back. Without it, each batch is a step, and
    `accelerator.backward` divides each loss by n all the same (accelerate 1.15, accelerator.py): batches and gradients
    are n times smaller than the script says. An Accelerator without a number counts to one. A prepared optimizer waits
    for the last batch, another one does not. `zero_grad` before that batch's backward pass leaves its gradients alone.

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
        for fault in source.loop_faults:
            if fault.kind in _FURTHER:
                yield self._further(source, fault)
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

    def _further(self, source: SourceFacts, fault: LoopFault) -> Violation:
        message, fix = _FURTHER[fault.kind]
        return self.violation(
            message.format(fault),
            source.at_line(fault.line, "accumulate" if fault.kind is Oversight.ACCUMULATES_ONE else fault.name),
            surface=Surface.SOURCE,
            evidence={"owner": fault.owner},
            fix=Fix(fix.format(fault), Safety.DISPLAY),
        )


#: kind of fault -> its message and its fix
_FURTHER = {
    Oversight.ACCUMULATES_ONE: (
        "{0.owner} is not told how many batches to accumulate, so each is a step, and {0.name} has no effect on it",
        "pass gradient_accumulation_steps={0.name} to Accelerator",
    ),
    Oversight.UNPREPARED_STEP: (
        "{0.name} runs with each batch inside accumulate, because {0.owner}.prepare was not given the optimizer",
        "give the optimizer to {0.owner}.prepare",
    ),
    Oversight.CLEARS_EACH: (
        "{0.name} clears what earlier batches have added before each step, which sees the last batch alone",
        "clear the gradients behind the step",
    ),
}


def _steps(accelerator: Call) -> Value:
    """Return the number of batches that an Accelerator is to accumulate; UNKNOWN if the script takes it from elsewhere."""
    plugin = accelerator.within("gradient_accumulation_plugin")
    if plugin is not None:
        return plugin.value("num_steps", 1)
    given = accelerator.argument("gradient_accumulation_steps")
    return 1 if given is None else given.value
