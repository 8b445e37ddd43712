"""Rule KB637: token-without-row."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.ranks import RanksFacts


#: The names of input embeddings.
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")


class TokenWithoutRow(Rule):
    """Token ids, or a vocabulary size, for which the input embedding has no row.

    ## What it does

    Compares `vocab_size` and `pad_token_id` in the model's config with the rows of its input embedding, and the
    first batch of a Trainer. In a folder, compares the added tokens of the tokenizer with the rows of the embedding: the
    adapter's own, the base's, or `vocab_size`. Tokens that are only in a tokenizer or a config are a warning.

    ## Why is this bad?

    A text with such a token raises `index out of range`; on a GPU it is a device-side assert that names no cause. A
    `vocab_size` above the rows stops the loss: `shape is invalid for input`.

    ## Example

    `tokenizer.add_special_tokens({"pad_token": "[PAD]"})` without `model.resize_token_embeddings(len(tokenizer))`.

    ## Fix

    Call `model.resize_token_embeddings(len(tokenizer))`, and train the new rows (`trainable_token_indices`).

    ## Fix safety

    Display only: the new rows have to be trained.

    ## References

    - https://github.com/huggingface/peft/issues/1300
    - https://github.com/huggingface/peft/issues/1554
    - https://github.com/huggingface/transformers/issues/22312
    """

    meta: ClassVar[Meta] = Meta(
        code="KB637",
        slug="token-without-row",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each key of the config."""
        for key, value, rows in model.vocabulary:
            yield self.violation(
                f"{key} is {value}, and the input embedding has {rows} rows",
                Location(f"config.{key}"),
                severity=Severity.ERROR if key == "vocab_size" else Severity.WARNING,
                evidence={"value" if key == "vocab_size" else "token": value, "rows": rows},
                fix=_FIX,
            )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the first batch of a Trainer."""
        batch = ranks.batch
        if batch is None or batch.rows is None:
            raise Unchecked("no trainer whose first batch has token ids is at hand")
        if batch.highest >= batch.rows:
            yield self.violation(
                f"the first batch has a token {batch.highest}, and the input embedding {batch.rows} rows",
                Location("input_ids"),
                surface=Surface.RANKS,
                evidence={"token": batch.highest, "rows": batch.rows},
                fix=_FIX,
            )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the tokenizer of the folder."""
        rows = _rows(checkpoint)
        if rows is None or checkpoint.highest_token < 0:
            raise Unchecked("no tokenizer with added tokens beside the config of a model here")
        if checkpoint.highest_token >= rows:
            yield self.violation(
                f"the tokenizer has a token {checkpoint.highest_token}, and the input embedding {rows} rows",
                Location("added_tokens_decoder", "tokenizer_config.json"),
                surface=Surface.FILES,
                severity=Severity.WARNING,
                evidence={"token": checkpoint.highest_token, "rows": rows},
                fix=_FIX,
            )


_FIX = Fix("model.resize_token_embeddings(len(tokenizer))", Safety.DISPLAY)


def _rows(checkpoint: CheckpointFacts) -> int | None:
    """Return the rows of the input embedding; None if they are not known."""
    base = checkpoint.base or checkpoint
    for tensors in (checkpoint.adapter_tensors, base.tensors):
        for name, tensor in tensors.items():
            if name.endswith(tuple(f"{entry}.weight" for entry in EMBEDDINGS)) and len(tensor.shape) == 2:
                return tensor.shape[0] if tensor.shape[1] > 1 else None
    size = (base.config or {}).get("vocab_size")
    return size if isinstance(size, int) else None
