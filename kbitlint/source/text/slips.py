"""Slips of a script: names that nothing binds, configs that are lost, tokens that are none."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.object_faults import ObjectFault
from kbitlint.source.nodes import line_offset
from kbitlint.source.text.passed_methods import SIGNS, passed_methods
from kbitlint.source.text.undefined_names import undefined_names

if TYPE_CHECKING:
    from collections.abc import Iterator


#: signs of special tokens in texts
_MARKS = ("</s>", "<s>", "<|", "<eos>")


def slips(module: ast.Module, text: str) -> Iterator[ObjectFault]:
    """Yield the slips of a script that loads or trains a model."""
    for name, line in undefined_names(module, text):
        yield ObjectFault("undefined", "", name, line, line_offset(text, line))
    if any(sign in text for sign in SIGNS):
        for method in passed_methods(module):
            start = line_offset(text, method.lineno)
            yield ObjectFault("passed", "", method.attr, method.lineno, start, detail=ast.unparse(method))
    if "Config(" in text or "Arguments(" in text:
        from kbitlint.source.text.lost_settings import lost_settings  # scripts that make configs

        for lost in lost_settings(module):
            yield ObjectFault(
                "lost settings",
                str(lost.later or ""),
                lost.name,
                lost.line,
                line_offset(text, lost.line),
                detail=", ".join(lost.keywords),
            )
    if "Trainer(" in text and any(mark in text for mark in _MARKS):
        from kbitlint.source.text.literal_tokens import literal_tokens  # scripts that write texts with tokens

        for token, checkpoint, line in literal_tokens(module, text):
            yield ObjectFault("literal", checkpoint, token, line, line_offset(text, line))
