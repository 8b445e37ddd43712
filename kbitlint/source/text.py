"""Offsets of a text, from the lines and UTF-8 columns that ``ast`` counts in."""

from __future__ import annotations

import ast
import itertools
from typing import TYPE_CHECKING

from kbitlint.source.values import Span

if TYPE_CHECKING:
    from collections.abc import Sequence


class Text:
    """A text and where its lines start."""

    def __init__(self, text: str) -> None:
        self.text = text
        # as Python's tokenizer counts lines: form feeds and other separators do not end one
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def offset(self, line: int, column: int) -> int:
        """The offset of a 1-based line and a column in UTF-8 bytes."""
        content = self._lines[line - 1]
        if not content.isascii():
            column = len(content.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "replace"))
        return self._starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> Span:
        """Where a node stands."""
        start = self.offset(node.lineno, node.col_offset)
        end = self.offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
        return Span(start, end, node.lineno)


def import_place(text: Text, body: Sequence[ast.stmt]) -> int:
    """Where a new import goes: before the first import, or else before the first statement that does anything.

    The docstring and imports from ``__future__`` must stay first. What stands behind one of them on its line is a place
    inside a line; every other place is the start of one.
    """
    head = list(itertools.takewhile(lambda index: _does_nothing(body[index]) or _is_future(body[index]), range(len(body))))
    first = max((index + 1 for index in head if _is_future(body[index]) or _does_nothing(body[index], str)), default=0)
    if first == len(body):
        return len(text.text)
    imports = (index for index in range(first, len(body)) if isinstance(body[index], (ast.Import, ast.ImportFrom)))
    index = next((index for index in imports if not _is_future(body[index])), None)
    if index is None:
        index = next((index for index in range(first, len(body)) if not _does_nothing(body[index])), first)
    while index > first and body[index - 1].end_lineno == _line(body[index]):
        index -= 1
    line = _line(body[index])
    behind = index > 0 and body[index - 1].end_lineno == line
    return text.offset(line, body[index].col_offset if behind else 0)


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__" and not statement.level


def _does_nothing(statement: ast.stmt, kind: type = object) -> bool:
    """Whether a statement is a constant: a docstring, or what takes the place of a magic of a notebook."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, kind)


def _line(statement: ast.stmt) -> int:
    """The line on which a statement starts, its decorators included."""
    decorators = getattr(statement, "decorator_list", ())
    return decorators[0].lineno if decorators else statement.lineno
