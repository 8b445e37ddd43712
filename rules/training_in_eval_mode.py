"""Rule KB594: training-in-eval-mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class TrainingInEvalMode(Rule):
    """A loop evaluates between its steps, and goes on to train in eval mode.

    ## What it does

    Reports the call of a function of the script that calls `model.eval()`, inside of a loop that goes backward through the
    same model, where neither the function nor the loop calls `model.train()` again. KB403 reports a model that sleeps when
    its training starts.

    ## Why is this bad?

    From the first evaluation on, dropout is off and the layers checkpoint nothing, as they do so in training mode only. The
    memory of a step rises, and the run may end there.

    ## Example

    `if step % 100 == 0: evaluate(model, loader)`, where `evaluate` starts with `model.eval()`.

    ## Fix

    Call `model.train()` at the end of the evaluation.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/issues/21381
    """

    meta: ClassVar[Meta] = Meta(
        code="KB594",
        slug="training-in-eval-mode",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each evaluation after which a loop trains in eval mode."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.LEFT_ASLEEP:
                yield self.violation(
                    f"{fault.name} leaves the model in eval mode, and the loop goes on without model.train()",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"function": fault.name},
                    fix=Fix("call model.train() behind the evaluation", Safety.DISPLAY),
                )
