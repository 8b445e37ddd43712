"""Rule KB715: padding-with-labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class PaddingWithLabels(Rule):
    """Padding has labels, so that the model learns to write it.

    ## What it does

    Batches the first sequences of a Trainer's data with its collator. Reports labels at positions that the attention mask
    leaves out.

    ## Why is this bad?

    The loss is a mean over labels. Labels of padding are easy and many, so the loss falls fast while the answers are hardly
    learned, and the model learns to go on with padding.

    ## Example

    `tokenizer(text, padding="max_length")` with `labels = input_ids.copy()` and the default collator.

    ## Fix

    Set the labels of padding to -100, or use `DataCollatorForLanguageModeling(tokenizer, mlm=False)`.

    ## Fix safety

    Display only: the cause is in the data.

    ## References

    - https://github.com/huggingface/transformers/issues/22794
    - https://github.com/huggingface/trl/issues/1385
    """

    meta: ClassVar[Meta] = Meta(
        code="KB715",
        slug="padding-with-labels",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the data as a whole."""
        batch = ranks.labelled
        if batch is None:
            raise Unchecked("no trainer whose first batch has labels is at hand")
        if batch.learned_padding:
            yield self.violation(
                f"{batch.learned_padding} of {batch.learned} labels of the first {batch.sequences} sequences are of padding",
                Location("labels"),
                surface=Surface.RANKS,
                evidence={"padding": batch.learned_padding, "learned": batch.learned},
                fix=Fix("set the labels of padding to -100", Safety.DISPLAY),
            )
