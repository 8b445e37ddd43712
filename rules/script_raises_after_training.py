"""Rule KB902: script-raises-after-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.rehearsal import RehearsalFacts


class ScriptRaisesAfterTraining(Rule):
    """A script that ends with an exception after its training.

    ## What it does

    Rehearses the script behind its first training step, without the steps: saving, merging, uploading. Reports the exception
    that it ends with. What depends on weights, such as metrics or generated text, is made up, and an exception of the
    user's own code that follows from it is a skip.

    ## Why is this bad?

    The training runs to its end, and its result may be lost: nothing was saved, or not where it was meant to be.

    ## Example

    `trainer.model.merge_and_unload().save_pretraned("merged")`: an AttributeError after three days.

    ## Fix

    The message of the library says what it expects. Save the adapters first, directly after `train()`.

    ## Fix safety

    No fix is offered: the cause is in code.

    ## References

    - https://github.com/huggingface/transformers/issues/26972
    - https://github.com/huggingface/peft/issues/2368
    """

    meta: ClassVar[Meta] = Meta(
        code="KB902",
        slug="script-raises-after-training",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_rehearsal(self, rehearsal: RehearsalFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, at the innermost line of the user's code."""
        raised = rehearsal.raised_in("AFTER")
        if raised is not None:
            yield self.violation(raised.sentence, raised.at, surface=Surface.REHEARSAL, evidence=raised.evidence)
