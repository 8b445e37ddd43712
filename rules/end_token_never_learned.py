"""Rule KB714: end-token-never-learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class EndTokenNeverLearned(Rule):
    """The end of each sequence is masked, so that the model never learns to stop.

    ## What it does

    Batches the first sequences of a Trainer's data with its collator. Reports a batch that contains end-of-sequence tokens and
    other labels, if no end has a label.

    ## Why is this bad?

    The model learns what to write and not where to end. Generation runs to its limit, or starts the next turn by itself.

    ## Example

    `tokenizer.pad_token = tokenizer.eos_token` with `DataCollatorForLanguageModeling`, which masks every pad token.

    ## Fix

    Use another token for padding: an unused or the unknown token, or a new one with `resize_token_embeddings`.

    ## Fix safety

    Display only: the token has to exist in the tokenizer.

    ## References

    - https://github.com/huggingface/transformers/issues/22794
    - https://github.com/huggingface/transformers/issues/23230
    """

    meta: ClassVar[Meta] = Meta(
        code="KB714",
        slug="end-token-never-learned",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the data as a whole."""
        batch = ranks.labelled
        if batch is None:
            raise Unchecked("no trainer whose first batch has labels is at hand")
        if batch.learned and batch.ends and not batch.learned_ends:
            yield self.violation(
                f"none of the {batch.ends} end tokens of the first {batch.sequences} sequences has a label",
                Location("labels"),
                surface=Surface.RANKS,
                evidence={"ends": batch.ends, "learned": batch.learned},
                fix=Fix("pad with another token than the end token", Safety.DISPLAY),
            )
