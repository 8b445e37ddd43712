"""Rule KB904: labels-all-ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.rehearsal import RehearsalFacts
    from kbitlint.facts.source import SourceFacts


class LabelsAllIgnored(Rule):
    """A batch in which every label is -100, so that its loss has nothing to learn from.

    ## What it does

    Counts the labels of the first batch that are not -100, as the script's tokenizer and collator made them. In a script,
    follows the tensors that it makes itself: `torch.full_like(labels, -100)`.

    ## Why is this bad?

    The loss of such a batch is nan or zero, and no parameter learns from it. A response template that the tokenizer splits in
    another way than the text does this, and so does padding with the end token where that token is masked.

    ## Example

    A collator that masks everything before `### Response:`, on texts that are cut off before it.

    ## Fix

    Look at the labels of one batch beside its tokens. Give the template as token ids, or raise the length of the texts.

    ## Fix safety

    No fix is offered: what the labels should be is the script's to say.

    ## References

    - https://github.com/huggingface/trl/issues/1053
    - https://github.com/huggingface/trl/issues/588
    """

    meta: ClassVar[Meta] = Meta(
        code="KB904",
        slug="labels-all-ignored",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose data holds no other label on any path."""
        for trained in source.trained():
            if all(training.batch is not None and training.batch.ignored for training in trained.paths):
                yield self.violation(
                    "every label is -100, so that no token counts in the loss",
                    source.at(trained.call),
                    surface=Surface.SOURCE,
                    fix=Fix("leave the labels of the answers in place", Safety.DISPLAY),
                )

    def check_rehearsal(self, rehearsal: RehearsalFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose first batch has no label that counts."""
        empty = [batch for batch in rehearsal.batches if batch.labelled == 0]
        if any(not batch.genuine for batch in empty):
            raise Unchecked("no label of the first batch counts, but its data or tokenizer were stood in for")
        for batch in empty:
            yield self.violation(
                "every label of the first batch is -100",
                Location(file=batch.file, line=batch.line or None),
                surface=Surface.REHEARSAL,
                evidence={"shape": list(batch.shape)},
                fix=Fix("leave the labels of the answers in place", Safety.DISPLAY),
            )
