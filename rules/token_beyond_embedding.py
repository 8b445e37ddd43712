"""Rule KB903: token-beyond-embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.rehearsal import RehearsalFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training


class TokenBeyondEmbedding(Rule):
    """A batch with a token id that the input embedding has no row for.

    ## What it does

    Compares the largest token id of the first batch, as the script's tokenizer and collator made it, with the rows of the
    model's input embedding. In a script, follows the tensors that it makes itself, and the calls that resize the embedding.

    ## Why is this bad?

    The first step raises an IndexError on a CPU. On a GPU it stops with a device-side assert, which names neither the token
    nor the embedding.

    ## Example

    `tokenizer.add_special_tokens({"pad_token": "[PAD]"})` on Llama: 128256 tokens and 128256 rows, so that `[PAD]` has none.

    ## Fix

    Call `model.resize_token_embeddings(len(tokenizer))` before the adapters are attached, or use a token that is there:
    `tokenizer.pad_token = tokenizer.eos_token`.

    ## Fix safety

    No fix is offered: new rows have to be trained, and a token in use has a meaning.

    ## References

    - https://github.com/huggingface/transformers/issues/11102
    - https://github.com/huggingface/transformers/issues/12763
    """

    meta: ClassVar[Meta] = Meta(
        code="KB903",
        slug="token-beyond-embedding",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose tokens have no row on any path."""
        for trained in source.trained():
            found = [_beyond(training) for training in trained.paths]
            if found and all(found) and found[0] is not None:
                token, rows = found[0]
                yield self.violation(
                    f"the data holds token ids up to {token}, and the embedding has {rows} rows",
                    source.at(trained.call),
                    surface=Surface.SOURCE,
                    evidence={"token": token, "rows": rows},
                    fix=Fix("resize the embeddings to the tokenizer, or use a token that is there", Safety.DISPLAY),
                )

        for fault in source.object_faults:
            if fault.kind == "beyond":
                yield self.violation(
                    f"the new padding token gets the id {fault.detail}, and the embedding has {fault.detail} rows",
                    source.at_line(fault.line, "tokenizer"),
                    surface=Surface.SOURCE,
                    evidence={"token": int(fault.detail), "rows": int(fault.detail)},
                    fix=Fix("resize the embeddings to the tokenizer, or use a token that is there", Safety.DISPLAY),
                )

    def check_rehearsal(self, rehearsal: RehearsalFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose first batch has such a token."""
        for batch in rehearsal.batches:
            if batch.largest_id >= batch.rows > 0:
                yield self.violation(
                    f"the first batch holds the token id {batch.largest_id}, and the embedding has {batch.rows} rows",
                    Location(file=batch.file, line=batch.line or None),
                    surface=Surface.REHEARSAL,
                    evidence={"token": batch.largest_id, "rows": batch.rows, "shape": list(batch.shape)},
                    fix=Fix("resize the embeddings to the tokenizer, or use a token that is there", Safety.DISPLAY),
                )


def _beyond(training: Training) -> tuple[int, int] | None:
    """Return a token id and the rows of the embedding, if it has no row for the token; None if it may have one."""
    model, token = training.model, training.batch.token if training.batch is not None else None
    held = model.named.vocabulary if model.rows is None and model.named is not None else model.rows
    if token is None or not isinstance(held, int) or not 0 < held <= token:
        return None
    return token, held
