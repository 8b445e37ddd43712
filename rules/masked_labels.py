"""Rule KB713: masked-labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts


class MaskedLabels(Rule):
    """Every label of the first sequences is masked, so that nothing is learned from them.

    ## What it does

    Batches the first sequences of a Trainer's data with its collator. Reports a batch in which every label is -100.

    ## Why is this bad?

    The loss ignores -100. The mean over no token is NaN, and some losses return 0 instead. Either way nothing is learned, and
    a NaN makes every adapter NaN.

    ## Example

    A completion-only collator whose response template is tokenized differently inside the chat; a `max_length` that cuts the
    answer off; `assistant_only_loss` with a chat template without `{% generation %}`.

    ## Fix

    Decode a batch and its labels, and correct the template or the length.

    ## Fix safety

    Display only: the cause is in the data.

    ## References

    - https://github.com/huggingface/trl/issues/3927
    - https://github.com/huggingface/trl/issues/1385
    """

    meta: ClassVar[Meta] = Meta(
        code="KB713",
        slug="masked-labels",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the data as a whole."""
        batch = ranks.batch
        if batch is None or batch.learned is None:
            raise Unchecked("no trainer whose first batch has labels is at hand")
        if not batch.learned:
            yield self.violation(
                f"all {batch.tokens} labels of the first {batch.sequences} sequences are -100",
                Location("labels"),
                surface=Surface.RANKS,
                evidence={"sequences": batch.sequences, "tokens": batch.tokens},
                fix=Fix("decode a batch and its labels: the template or max_length masks every token", Safety.DISPLAY),
            )
