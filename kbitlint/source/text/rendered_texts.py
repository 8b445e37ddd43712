"""Texts that a chat template makes for SFTTrainer, read from the text: what stands at their start and at their end."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, items, keyword, last, returned
from kbitlint.upstream.special_tokens import STARTED, template_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def

#: words of code that takes the first token away, or tells the tokenizer not to add it
_SINGLE = ("bos_token", "add_bos", "add_special_tokens", "begin_of_text", "unsloth", "<bos>")


def rendered(names: Bindings, call: ast.Call, maps: list[tuple[ast.Call, Def]], text: str) -> Iterator[DataUse]:
    """Yield a mark of a new turn behind the answers, and a first token that is written twice.

    Args:
        names: The bindings of the file.
        call: The call that makes the trainer.
        maps: The calls of ``map`` that make its data, each with its function.
        text: The file's text.
    """
    args, _ = names.value(keyword(call, "args"))
    named = keyword(args, "dataset_text_field") if isinstance(args, ast.Call) else None
    field = named.value if isinstance(named, ast.Constant) and isinstance(named.value, str) else "text"
    made = [template for _, function in maps for one in returned(function) if (template := _template(names, one, field))]
    form = names.function(keyword(call, "formatting_func"))
    formed = [one for one in (returned(form) if form is not None else []) if _is_template(one)]
    prompt = keyword(formed[0], "add_generation_prompt") if formed and isinstance(formed[0], ast.Call) else None
    if prompt is not None and is_constant(prompt, value=True):  # trl_rows reads the rows that map makes
        yield DataUse("generation prompt learned", formed[0].lineno)
    if not (made := [*made, *formed]):
        return
    template = made[0]
    name = _checkpoint(names, keyword(call, "processing_class") or keyword(call, "tokenizer"))
    if template_of_name(name) in STARTED and not any(one in text for one in _SINGLE):
        yield DataUse("two first tokens", template.lineno)


def _template(names: Bindings, row: ast.expr, field: str) -> ast.expr | None:
    """Return the call of a chat template that a row holds as its text, or that makes each text of a batch."""
    held, _ = names.value(items(row).get(field))
    if isinstance(held, ast.ListComp):
        held = held.elt
    return held if isinstance(held, ast.Call) and _is_template(held) else None


def _is_template(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or last(node) != "apply_chat_template":
        return False
    whole = keyword(node, "tokenize")
    return whole is not None and is_constant(whole, value=False)


def _checkpoint(names: Bindings, tokenizer: ast.expr | None) -> str:
    """Return the checkpoint of a tokenizer, or the default of the option that names it; empty if unknown."""
    made, _ = names.value(tokenizer)
    if not isinstance(made, ast.Call) or last(made) != "from_pretrained" or not made.args:
        return ""
    name, _ = names.value(made.args[0])
    if isinstance(name, ast.Attribute):
        options = [one for one in names.calls if last(one) == "add_argument" and one.args]
        name = next((keyword(one, "default") for one in options if is_constant(one.args[0], f"--{name.attr}")), None)
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""
