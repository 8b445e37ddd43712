"""Rule KB561: unfit-data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class UnfitData(Rule):
    """Data of another form than the trainer, the collator or the script's own function takes.

    ## What it does

    Follows the data of a script from the data set through `map` into the Trainer. Reports data that the code there refuses:
    columns that Trainer removes before they are read, a streamed data set without `max_steps`, token ids that are a
    `BatchEncoding`, messages taken for text, a batch of `map` taken for one example, a chat template without the marks that
    `assistant_only_loss` needs, splits given for rows, columns or token types that a trainer or a forward misses, padding
    without a padding token, a best metric that no evaluation returns, early stopping without one, the loss of a model without
    labels, labels decoded with their -100, and reward functions that return one number or none, leave completions out, or take
    a column that the data does not have.

    Follows each function that makes rows, and knows the columns of its result and the form of each. Reports texts that are not
    tokenized, labels or tensors in a form that the collator or the model refuses, columns that a format, a transform or Trainer
    takes away before they are read, columns that are named and not there, a batch that changes its number of rows beside other
    columns, and a function for `map` that returns nothing.

    ## Why is this bad?

    The exception comes at the first batch, at the first reward or after the first evaluation. On a rented GPU that is after
    the download of the model.

    ## Example

    `{"input_ids": tokenizer.apply_chat_template(messages)}` with transformers 5.

    ## Fix

    The message names the change.

    ## Fix safety

    Display only: the cause is in the data.

    ## References

    - https://github.com/huggingface/transformers/pull/41626
    - https://github.com/huggingface/transformers/issues/19599
    - https://github.com/huggingface/trl/issues/4202
    - https://github.com/huggingface/transformers/issues/40217
    """

    meta: ClassVar[Meta] = Meta(
        code="KB561",
        slug="unfit-data",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each place where data does not fit."""
        for use in source.data_uses:
            row = CONTRACTS[use.kind]
            if not (row.learns or row.code) and row.holds_for(source.versions):
                yield self.violation(
                    row.message.format(use.detail),
                    source.at_line(use.line),
                    surface=Surface.SOURCE,
                    evidence={"relation": use.kind},
                    fix=Fix(row.fix, Safety.DISPLAY),
                )
