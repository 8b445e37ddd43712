"""Rule KB568: names-in-one-text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.architectures import every_name
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Argument, Span, Value

#: words, with what people put between the names of a list
_NAMES = re.compile(r"[\w ,;]+")
_SEPARATORS = re.compile(r"[ ,;]+")
#: names of linear layers that models of transformers have at their top
_AT_TOP = frozenset(("lm_head", "embed_out", "output_layer", "score", "classifier", "qa_outputs", "cls", "head"))


class NamesInOneText(Rule):
    """The targets of adapters are one text, which PEFT takes for a pattern of whole paths.

    ## What it does

    Reports a `target_modules` of one text that lists names of layers (`"q_proj,v_proj"`), or is the name of one layer
    (`"q_proj"`), on every path. Texts with signs of a regular expression, and `all-linear`, are not reported.

    ## Why is this bad?

    PEFT compares a text with the whole path of each module by `re.fullmatch`. No path, such as
    `model.layers.0.self_attn.q_proj`, is only the name or holds a comma. `get_peft_model` raises a ValueError. The text
    often comes from an option of the command line or from an environment variable that was not split.

    ## Example

    `LoraConfig(target_modules="q_proj,v_proj")`.

    ## Fix

    Pass a list, `["q_proj", "v_proj"]`: its entries are compared with the ends of paths. An option of the command line needs
    `.split(",")` or `nargs="+"`.

    ## Fix safety

    Safe where the text stands in the call. Display only where it comes from elsewhere.

    ## References

    - https://github.com/hiyouga/LlamaFactory/issues/4014
    """

    meta: ClassVar[Meta] = Meta(
        code="KB568",
        slug="names-in-one-text",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config that is attached with such targets."""
        found: dict[Span, set[Value]] = {}
        arguments: dict[Span, Argument] = {}
        for _, steps in source.steps_at(Action.ATTACH):
            for config in (step.call.within("peft_config") for step in steps):
                argument = (
                    config.argument("target_modules") if config is not None and config.callee.startswith("peft.") else None
                )
                if config is not None and argument is not None:
                    value = argument.value if isinstance(argument.value, (str, tuple)) else None
                    found.setdefault(config.span, set()).add(value)
                    arguments[config.span] = argument
        for span, values in found.items():
            if not all(map(_is_list_in_text, values)):
                continue
            argument, text = arguments[span], str(next(iter(values)))
            names = [name for name in _SEPARATORS.split(text) if name]
            written = source.code_of(argument.span)[:1] in ("'", '"') and argument.span.end <= len(source.own_text)
            listed = "[" + ", ".join(f'"{name}"' for name in names) + "]"
            edits = source.replace(argument.span, listed) if written and len(values) == 1 else ()
            yield self.violation(
                f"target_modules is one text, a pattern for whole paths of modules, and {text!r} matches none: PEFT raises",
                source.at_line(argument.whole.line, "target_modules"),
                surface=Surface.SOURCE,
                evidence={"pattern": text},
                fix=Fix(f"pass a list: {listed}", Safety.SAFE if edits else Safety.DISPLAY, edits),
            )


def _is_list_in_text(value: Value) -> bool:
    """Return whether a value is a text of names that no path of a module matches as a whole."""
    if not isinstance(value, str) or not _NAMES.fullmatch(value):
        return False
    return bool(_SEPARATORS.search(value.strip())) or (value in every_name() and value not in _AT_TOP)
