"""Rule KB663: literal-token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class LiteralToken(Rule):
    """A text ends or starts with a special token that the tokenizer does not have.

    ## What it does

    In a script that trains, reports texts that are joined or formatted, and whose end or start is a special token of another
    family: `</s>` for Llama 3 and Qwen, `<|endoftext|>` for Mistral and Llama 2. The checkpoint is known by its
    name. Scripts that give their tokenizer tokens are left out.

    ## Why is this bad?

    The tokenizer takes the token for plain text, and splits it into several. The model learns to write those letters, and
    not to end there.

    ## Example

    `f"{row['question']} {row['answer']}</s>"` with the tokenizer of Llama 3, whose end token is `<|end_of_text|>`.

    ## Fix

    Write `tokenizer.eos_token` instead of the token, or use the chat template.

    ## Fix safety

    Display only.

    ## References

    - https://huggingface.co/docs/transformers/main_classes/tokenizer
    """

    meta: ClassVar[Meta] = Meta(
        code="KB663",
        slug="literal-token",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each token that is plain text."""
        for fault in source.object_faults:
            if fault.kind == "literal":
                yield self.violation(
                    f"{fault.name} is no token of {fault.owner}, whose tokenizer splits it into plain text",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"token": fault.name, "checkpoint": fault.owner},
                    fix=Fix("write tokenizer.eos_token, or tokenizer.bos_token, instead", Safety.DISPLAY),
                )
