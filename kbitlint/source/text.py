"""Offsets of a text, from the lines and UTF-8 columns that ``ast`` counts in."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.values import Span

if TYPE_CHECKING:
    from collections.abc import Iterable


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


def import_place(text: Text, body: Iterable[ast.stmt]) -> int:
    """Where a new import goes: before the first import that is not from ``__future__``, else after the docstring."""
    after = 0
    for number, statement in enumerate(body):
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if isinstance(statement, (ast.Import, ast.ImportFrom)) and not future:
            return text.offset(statement.lineno, 0)
        docstring = number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if future or docstring:
            end = text.span(statement).end
            after = text.text.find("\n", end) + 1 or len(text.text)
    if after:
        return after
    start = 0
    while text.text.startswith("#", start):  # a shebang, an encoding, a licence
        start = text.text.find("\n", start) + 1
        if not start:
            return 0
    return start
