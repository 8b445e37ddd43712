"""Rule KB905: sequence-beyond-positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.rehearsal import RehearsalFacts


class SequenceBeyondPositions(Rule):
    """A batch with longer sequences than the model has learned positions for.

    ## What it does

    Compares the length of the first batch with the rows of the table of positions. Models that compute their positions
    (rotary embeddings, ALiBi) have no such table, and are not reported.

    ## Why is this bad?

    The first step raises an IndexError on a CPU, and stops with a device-side assert on a GPU.

    ## Example

    GPT-2, with 1024 positions, on texts that are padded to 2048 tokens.

    ## Fix

    Truncate the texts: `max_length` of the tokenizer call, or of `SFTConfig`.

    ## Fix safety

    No fix is offered: which part of a text to leave out is the script's to say.

    ## References

    - https://github.com/huggingface/transformers/pull/29600
    - https://github.com/huggingface/transformers/issues/97
    """

    meta: ClassVar[Meta] = Meta(
        code="KB905",
        slug="sequence-beyond-positions",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_rehearsal(self, rehearsal: RehearsalFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose first batch is too long."""
        long = [batch for batch in rehearsal.batches if batch.positions is not None and batch.shape[1] > batch.positions]
        if any(not batch.genuine for batch in long):
            raise Unchecked("the first batch is too long, but its data or tokenizer were stood in for")
        for batch in long:
            yield self.violation(
                f"the first batch has {batch.shape[1]} tokens a sequence, and the model {batch.positions} positions",
                Location(file=batch.file, line=batch.line or None),
                surface=Surface.REHEARSAL,
                evidence={"shape": list(batch.shape), "positions": batch.positions},
                fix=Fix("truncate the texts", Safety.DISPLAY),
            )
