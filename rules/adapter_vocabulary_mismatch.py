"""Rule KB626: adapter-vocabulary-mismatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts

#: the names of input embeddings and output heads
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "lm_head", "embed_out")


class AdapterVocabularyMismatch(Rule):
    """Saved adapter embeddings whose number of rows differs from the base.

    ## What it does

    Reports embedding and head tensors in adapter_model.safetensors whose number of rows differs from the base. The
    number of rows of the base is read from its safetensors headers. If they do not contain the tensor, `vocab_size` in
    config.json is used.

    ## Why is this bad?

    The usual cause is a tokenizer that was extended, and embeddings that were resized before training. If the base is
    not resized in the same way, loading stops with a size mismatch.

    ## Example

    An adapter with `embed_tokens` of 32,004 rows for a base with 32,000.

    ## Fix

    Resize the base with `model.resize_token_embeddings(rows)`, then load the adapter.

    ## Fix safety

    Display only: the call belongs in the code that loads the adapter.

    ## References

    - https://github.com/huggingface/peft/issues/1457
    - https://github.com/huggingface/peft/issues/1300
    - https://github.com/huggingface/peft/issues/1554
    """

    meta: ClassVar[Meta] = Meta(
        code="KB626",
        slug="adapter-vocabulary-mismatch",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each embedding or head with another number of rows."""
        from kbitlint.facts.checkpoint import packed_in  # an audit of a script needs none of these facts

        if not checkpoint.adapter_tensors:
            raise Unchecked("no adapter_model.safetensors here")
        base = checkpoint.base
        vocabulary = (base.config or {}).get("vocab_size") if base is not None else None
        if base is None or not isinstance(vocabulary, int):
            raise Unchecked("the config of the adapter's base is not here")
        packed = packed_in(checkpoint.adapter_tensors)
        for name, tensor in checkpoint.adapter_tensors.items():
            module = name.removeprefix("base_model.model.").removesuffix(".weight")
            last = module.rpartition(".")[2]
            stored = base.tensors.get(f"{module}.weight")
            rows = stored.shape[0] if stored is not None and stored.shape else vocabulary
            if name not in packed and last in EMBEDDINGS and ".lora_" not in name and tensor.shape and tensor.shape[0] != rows:
                yield self.violation(
                    f"the adapter's {last} has {tensor.shape[0]} rows, and the base has {rows}",
                    Location(name, "adapter_model.safetensors"),
                    surface=Surface.FILES,
                    evidence={"rows": tensor.shape[0], "base": rows},
                    fix=Fix(f"resize the base to {tensor.shape[0]} rows before loading the adapter", Safety.DISPLAY),
                )
