"""Rule KB574: unfit-tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.source import SourceFacts


class UnfitTokenizer(Rule):
    """A tokenizer lacks what the script asks of it, or has the tokens of another model.

    ## What it does

    Follows the checkpoint that each tokenizer comes from, and what the script gives it. Reports a chat template that a base
    checkpoint does not have, padding with an unknown token that the checkpoint does not have, and a tokenizer whose
    vocabulary is that of another model. All are known from the checkpoint's name, for published checkpoints of well-known
    families alone. Files that resize the embeddings are left out of the last. Also reports marks of answers that no text of
    the script holds, and an `eos_token` of the arguments that is another family's.

    ## Why is this bad?

    A call without its template or token raises a ValueError. The ids of another vocabulary mean other words, or have no row.

    ## Example

    `tokenizer.pad_token = tokenizer.unk_token` for Llama 3, whose tokenizer has no unknown token: the padding token is None.

    ## Fix

    Set `tokenizer.chat_template`, pad with the end token, or load the tokenizer of the model.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/huggingface/transformers/issues/33246
    - `transformers/tokenization_utils_base.py`: `get_chat_template`, `_get_padding_truncation_strategies`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB574",
        slug="unfit-tokenizer",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each tokenizer that is used as it cannot be."""
        seen: set[tuple[str, int]] = set()
        for fault in source.object_faults:
            if fault.kind in _WORDS and (fault.kind, fault.line) not in seen:
                seen.add((fault.kind, fault.line))
                yield self._report(source, fault)

    def _report(self, source: SourceFacts, fault: ObjectFault) -> Violation:
        message, fix = _WORDS[fault.kind]
        return self.violation(
            message.format(fault),
            source.at_line(fault.line, "tokenizer"),
            surface=Surface.SOURCE,
            severity=Severity.WARNING if fault.kind in ("bos", "right") else Severity.ERROR,
            consequence=None if fault.kind in ("template", "padless", "foreign end") else Consequence.TRAINS_WRONG,
            evidence={"checkpoint": fault.name or None, "detail": fault.detail or None},
            fix=Fix(fix, Safety.DISPLAY),
        )


#: kind of fault -> its message and its fix
_WORDS = {
    "template": (
        "the tokenizer of {0.name} has no chat template, and nothing sets one: apply_chat_template raises a ValueError",
        "set tokenizer.chat_template, or use the tokenizer of the chat model",
    ),
    "padless": (
        "the tokenizer of {0.name} has no unknown token, so its padding token becomes None: padding raises a ValueError",
        "tokenizer.pad_token = tokenizer.eos_token",
    ),
    "marks": (
        "the marks are those of {0.detail}, and the texts have the template of {0.name}: no mark is found, all labels are -100",
        "pass the marks of the template",
    ),
    "absent mark": (
        "no text that the script writes holds the mark {0.detail!r}: none is found, all labels are -100",
        "pass the mark that stands before the answers",
    ),
    "foreign end": (
        "{0.detail}, and nothing adds it: the trainer raises a ValueError",
        "name a token of the tokenizer, or leave the argument out",
    ),
    "bos": (
        "the chat template has written the first token of {0.name}, and the tokenizer adds it again: sequences start with two",
        "pass add_special_tokens=False",
    ),
    "right": (
        "texts are padded on the right, and generate continues behind the padding of the shorter ones",
        "set tokenizer.padding_side = 'left' before texts for generate are tokenized",
    ),
    "vocabulary": (
        "the tokenizer has another vocabulary than the model: {0.detail}",
        "load the tokenizer from the checkpoint of the model",
    ),
}
