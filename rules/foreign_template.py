"""Rule KB734: foreign-template."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.special_tokens import has_chat_template, template_of_name, template_of_word
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: program and its command -> the keys of the checkpoint and of the template
_KEYS = {
    "llamafactory.train": ("model_name_or_path", "template"),
    "llamafactory.export": ("model_name_or_path", "template"),
    "swift.sft": ("model", "template"),
}


class ForeignTemplate(Rule):
    """A chat model is trained on texts in the format of another family.

    ## What it does

    Reports a configuration of LLaMA-Factory or ms-swift whose `template` writes the turns of another family than the one that
    the chat model was trained on. Base models, and templates of a format that is not known, are not reported.

    ## Why is this bad?

    The program writes marks such as `[INST]` or `<|im_start|>` into the texts. The model has never seen them, or takes them for
    several plain tokens. It unlearns its own format. Whoever serves it with the template of its checkpoint gets worse answers.

    ## Example

    `model_name_or_path: Qwen/Qwen2.5-7B-Instruct` with `template: llama2`.

    ## Fix

    Name the template of the model's family.

    ## Fix safety

    Display only: the template may be chosen on purpose.

    ## References

    - https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/data/template.py
    """

    meta: ClassVar[Meta] = Meta(
        code="KB734",
        slug="foreign-template",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each configuration whose template is another family's."""
        for call in source.calls:
            model_key, template_key = _KEYS.get(call.callee, ("", ""))
            argument = call.argument(template_key) if template_key else None
            name = call.value(model_key) if model_key else None
            if argument is None or not isinstance(name, str) or not isinstance(argument.value, str):
                continue
            own, written = template_of_name(name), template_of_word(argument.value)
            if own and written and own != written and has_chat_template(name):
                yield self.violation(
                    f"{argument.value} writes the turns of {written}, and {name} was trained on those of {own}",
                    source.at_line(argument.whole.line, template_key),
                    surface=Surface.SOURCE,
                    evidence={"template": argument.value, "own": own},
                    fix=Fix(f"name the template of {own}", Safety.DISPLAY),
                )
