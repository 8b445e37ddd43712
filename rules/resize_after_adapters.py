"""Rule KB608: resize-after-adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: names of input embeddings and heads, as the model classes of transformers use them
_EMBEDDINGS = frozenset(
    ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "lm_head", "embed_out", "shared", "embeddings")
)


class ResizeAfterAdapters(Rule):
    """Embeddings are resized after adapters were attached to them.

    ## What it does

    Reports `resize_token_embeddings` on a model whose adapter config names the embeddings or the head: in `modules_to_save`,
    in `target_modules`, or through `trainable_token_indices`. An error if every path to the call attaches such adapters.

    ## Why is this bad?

    The embedding is no longer an `nn.Embedding` but PEFT's wrapper around one, and transformers refuses to resize it: a
    TypeError, or a KeyError where head and embedding are tied.

    ## Example

    `get_peft_model(model, LoraConfig(modules_to_save=['embed_tokens', 'lm_head']))`, then
    `model.resize_token_embeddings(len(tokenizer))`.

    ## Fix

    Add the tokens and resize before `get_peft_model`.

    ## Fix safety

    Display only: the order of the statements between both calls matters.

    ## References

    - https://github.com/huggingface/peft/issues/1300
    - https://github.com/huggingface/peft/issues/349
    """

    meta: ClassVar[Meta] = Meta(
        code="KB608",
        slug="resize-after-adapters",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each resize of embeddings that adapters wrap on a path to it."""
        for call, steps in source.steps_at(Action.RESIZE):
            wrapped = [
                name
                for step in steps
                if step.before.adapters is not None and step.before.adapters.kept and step.before.certain
                if (name := _wrapped(step.before.adapters.config))
            ]
            if not wrapped:
                continue
            always = len(wrapped) == len(steps)
            yield self.violation(
                f"{wrapped[0]} has adapters when the embeddings are resized: a TypeError",
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if always else Severity.WARNING,
                evidence={"module": wrapped[0]},
                fix=Fix("resize the embeddings before the adapters are attached", Safety.DISPLAY),
            )


def _wrapped(config: object) -> str:
    """Return an embedding or a head that an adapter config wraps; empty if it names none."""
    if not isinstance(config, Call):
        return ""
    for key in ("modules_to_save", "target_modules"):
        named = config.value(key)
        for name in named if isinstance(named, tuple) else ():
            if isinstance(name, str) and name.rpartition(".")[2] in _EMBEDDINGS:
                return name
    return (
        "the input embedding" if config.value("trainable_token_indices") and config.argument("trainable_token_indices") else ""
    )
