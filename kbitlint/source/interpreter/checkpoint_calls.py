"""Direct calls of ``torch.utils.checkpoint``, found anywhere in a file.

Most of these calls are in the ``forward`` of a model, which the interpreter does not follow. So this file searches the
whole tree.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Argument, Call, Value
from kbitlint.source.nodes import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.offsets import Text

_MODULE = "torch.utils.checkpoint"
_FUNCTIONS = ("checkpoint", "checkpoint_sequential")
_IMPORTED = re.compile(r"utils\.checkpoint|torch\.utils\s+(?:import|as)\b")


def checkpoint_calls(text: Text, module: ast.Module) -> Iterator[Call]:
    """Yield each call of ``checkpoint`` and ``checkpoint_sequential``, under any name that the file imports."""
    if _IMPORTED.search(text.text) is None:
        return
    names = dict(_names(module))
    for node in walk(module):
        if isinstance(node, ast.Call):
            function = _resolved(node.func, names)
            if function.startswith(f"{_MODULE}.") and function.rpartition(".")[2] in _FUNCTIONS:
                yield _call(text, node, f"torch.{function.rpartition('.')[2]}")


def _names(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _resolved(node: ast.expr, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return ""
    return ".".join((names[node.id], *reversed(parts)))


def _call(text: Text, node: ast.Call, callee: str) -> Call:
    arguments = []
    complete, tail = True, 0
    for keyword in node.keywords:
        span = text.span(keyword.value)
        tail = max(tail, span.end)
        if keyword.arg is None:
            complete = False
        else:
            value: Value = keyword.value.value if isinstance(keyword.value, ast.Constant) else UNKNOWN  # type: ignore[assignment]
            arguments.append(Argument(keyword.arg, value, span, text.span(keyword)))
    tail = max([tail, *(text.span(argument).end for argument in node.args)])
    return Call(callee, text.span(node), tuple(arguments), complete, tail=tail)
