"""Rule KB592: saved-untrained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class SavedUntrained(Rule):
    """A Trainer is made and its model is saved, and nothing trains it.

    ## What it does

    Reports a Trainer in a script that attaches new adapters and saves them, and calls neither `train()` nor anything else
    that could train them.

    ## Why is this bad?

    The saved adapter is the one that PEFT has drawn: its `lora_B` is zero, and it changes nothing.

    ## Example

    `trainer = SFTTrainer(model, peft_config=config)` followed by `trainer.save_model()`.

    ## Fix

    Call `trainer.train()` before the model is saved.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/peft/issues/2115
    """

    meta: ClassVar[Meta] = Meta(
        code="KB592",
        slug="saved-untrained",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each Trainer that never trains."""
        fresh = any(True for _ in source.steps_at(Action.ATTACH))
        for use in source.data_uses if fresh else ():
            row = CONTRACTS[use.kind]
            if row.code == self.meta.code:
                yield self.violation(
                    row.message.format(use.detail),
                    source.at_line(use.line, use.detail),
                    surface=Surface.SOURCE,
                    fix=Fix(row.fix, Safety.DISPLAY),
                )
