"""Rule KB626: adapter-vocabulary-mismatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.source import SourceFacts

#: the names of input embeddings and output heads
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "lm_head", "embed_out")

#: methods of tokenizers after which the vocabulary has another size
_GROW = (".add_tokens(", ".add_special_tokens(", "setup_chat_format(", "clone_chat_template(")


class AdapterVocabularyMismatch(Rule):
    """Saved adapter embeddings whose number of rows differs from the base.

    ## What it does

    Reports embedding and head tensors in adapter_model.safetensors whose number of rows differs from the base. The
    number of rows of the base is read from its safetensors headers. If they do not contain the tensor, `vocab_size` in
    config.json is used.

    In a script, reports a load of adapters on a base that is not resized, while the script itself, or one beside it, resized
    the base before it trained and saved these adapters. It is an error if the adapters hold copies of the embeddings or of the
    head, and a warning if only the resize makes PEFT save them.

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

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load on a base without the resize of the training."""
        scripts = (source, *source.neighbours)
        if not any(step.action is Action.RESIZE for one in scripts for path in one.paths for step in path.steps):
            return
        from kbitlint.facts.reloads import reloads  # few scripts resize embeddings

        for reload in reloads(source):
            resize = next((step for step in reload.saved if step.action is Action.RESIZE), None)
            if resize is None or any(step.action is Action.RESIZE for step in reload.loaded):
                continue
            adapters = reload.saved[-1].before.adapters
            holds = adapters is not None and isinstance(adapters.config, Call) and _holds_embeddings(adapters.config)
            grows = resize.detail == "tokens" or any(name in reload.by.text for name in _GROW)
            if adapters is None or not grows:
                continue
            where = f" by {reload.by.file}" if reload.by is not source else ""
            yield self.violation(
                f"the adapters were trained on resized embeddings{where}, and the base that loads them is not resized",
                source.at(reload.load),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if holds else Severity.WARNING,
                consequence=None if holds else Consequence.FRAGILE,
                evidence={"resized_at": resize.call.span.line, "holds_embeddings": holds},
                fix=Fix("resize the base with resize_token_embeddings(len(tokenizer)) before this call", Safety.DISPLAY),
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


def _holds_embeddings(config: Call) -> bool:
    """Return whether an adapter config copies embeddings or a head into the adapter, or targets them."""
    for key in ("modules_to_save", "target_modules"):
        named = config.value(key)
        if isinstance(named, tuple) and any(isinstance(name, str) and name.rpartition(".")[2] in EMBEDDINGS for name in named):
            return True
    return False
