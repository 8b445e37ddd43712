"""Rule KB901: script-raises-before-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.rehearsal import RehearsalFacts


class ScriptRaisesBeforeTraining(Rule):
    """A script that ends with an exception before its first training step.

    ## What it does

    Reports the exception that a rehearsal of the script ends with: its class, the library's message, and the innermost line
    of the user's code. The installed libraries raise it. An exception that only a rehearsal has is a skip: what it needs is
    not on this machine, or is a value of the weights.

    ## Why is this bad?

    The run ends after the model was downloaded and loaded, and has trained nothing.

    ## Example

    `SFTTrainer(model, tokenizer=tokenizer)` with TRL 1.16, which has no such argument any more: a TypeError.

    ## Fix

    The message of the library says what it expects. Where a rule on scripts knows the cause, that rule's fix is offered.

    ## Fix safety

    No fix is offered: the cause is in code.

    ## References

    - https://github.com/huggingface/trl/issues/6168
    - https://github.com/huggingface/cookbook/issues/305
    """

    meta: ClassVar[Meta] = Meta(
        code="KB901",
        slug="script-raises-before-training",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_rehearsal(self, rehearsal: RehearsalFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, at the innermost line of the user's code."""
        raised = rehearsal.raised_in("BEFORE")
        if raised is not None:
            yield self.violation(raised.sentence, raised.at, surface=Surface.REHEARSAL, evidence=raised.evidence)
