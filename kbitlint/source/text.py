"""Offsets of a text, from the lines and UTF-8 columns that ``ast`` counts in."""

from __future__ import annotations

import ast
import bisect
import itertools
import re
from typing import TYPE_CHECKING

from kbitlint.source.values import Span

if TYPE_CHECKING:
    from collections.abc import Iterable


_TOKEN = re.compile(r"\w+|[^\w\s]")
_WIDE = re.compile(r"[^\x00-\x7f]")


def has_more_tokens(text: str, most: int) -> bool:
    """Return whether a text holds more words and signs than ``most``; what stands in strings and comments counts too."""
    return len(text) > most and next(itertools.islice(_TOKEN.finditer(text), most, None), None) is not None


class Text:
    """A text and where its lines start."""

    def __init__(self, text: str) -> None:
        self.text = text
        # as Python's tokenizer counts lines: form feeds and other separators do not end one
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._wide: dict[int, tuple[list[int], list[int]]] = {}

    def offset(self, line: int, column: int) -> int:
        """The offset of a 1-based line and a column in UTF-8 bytes."""
        if not self._lines[line - 1].isascii():
            ends, extra = self._wide_of(line)
            column -= extra[bisect.bisect_right(ends, column)]
        return self._starts[line - 1] + column

    def _wide_of(self, line: int) -> tuple[list[int], list[int]]:
        """(the column behind each letter of more bytes than one, by how many the columns after so many of them are ahead)."""
        known = self._wide.get(line)
        if known is None:
            ends, extra = list[int](), [0]
            for found in _WIDE.finditer(self._lines[line - 1]):
                size = len(found[0].encode("utf-8", "surrogatepass"))
                ends.append(found.start() + extra[-1] + size)
                extra.append(extra[-1] + size - 1)
            known = self._wide[line] = (ends, extra)
        return known

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
