"""Offsets of a text in characters, computed from the lines and UTF-8 columns of ``ast``."""

from __future__ import annotations

import ast
import bisect
import copy
import functools
import itertools
import operator
import re
from typing import TYPE_CHECKING

from kbitlint.facts.values import Span

if TYPE_CHECKING:
    from collections.abc import Sequence


_TOKEN = re.compile(r"\w+|[^\w\s]")
_WIDE = re.compile(r"[^\x00-\x7f]")
_PLACE = operator.attrgetter("lineno", "col_offset", "end_lineno", "end_col_offset")


@functools.lru_cache(maxsize=64)
def has_more_tokens(text: str, most: int) -> bool:
    """Return whether a text has more than ``most`` words and signs; those in strings and comments count too."""
    return len(text) > most and next(itertools.islice(_TOKEN.finditer(text), most, None), None) is not None


class Text:
    """A text, with the offset at which each of its lines starts.

    Args:
        text: The text.
        start: The offset of the text in a joined text of several files.
        lines: The number of lines before the text in the joined one.
    """

    def __init__(self, text: str, start: int = 0, lines: int = 0) -> None:
        self.text = text
        self._from, self._lines_before = start, lines
        # lines as Python's tokenizer counts them: form feeds and other separators do not end one
        self._lines = text.split("\n")
        self._starts = list(itertools.accumulate((len(line) + 1 for line in self._lines), initial=0))
        self._wide: dict[int, tuple[list[int], list[int]]] = {}
        self._spans: dict[tuple[int, int, int | None, int | None], Span] = {}

    def at(self, start: int, lines: int) -> Text:
        """Return the text at another place of a joined text."""
        moved = copy.copy(self)
        moved._from, moved._lines_before, moved._spans = start, lines, {}  # noqa: SLF001  # of this class
        return moved

    def offset(self, line: int, column: int) -> int:
        """Return the offset in characters of a 1-based line and a 0-based column in UTF-8 bytes."""
        if not self._lines[line - 1].isascii():
            ends, extra = self._wide_of(line)
            column -= extra[bisect.bisect_right(ends, column)]
        return self._starts[line - 1] + column

    def _wide_of(self, line: int) -> tuple[list[int], list[int]]:
        """Return the table that converts the columns of a line from UTF-8 bytes to characters.

        The first list holds the byte column after each character outside ASCII. Entry ``n`` of the second is the number of
        bytes beyond one per character, after ``n`` of these characters.
        """
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
        """Return the span of a node."""
        place = _PLACE(node)
        known = self._spans.get(place)
        if known is None:  # every path of a script meets its nodes again
            start = self.offset(node.lineno, node.col_offset)
            end = self.offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
            known = self._spans[place] = Span(start + self._from, end + self._from, node.lineno + self._lines_before)
        return known


def import_place(text: Text, body: Sequence[ast.stmt]) -> int:
    """Return the offset of a new import: before the first import, or else before the first statement with an effect.

    The docstring and ``__future__`` imports remain first; if the text holds nothing else, the offset is its end. It is the
    start of a line, except behind a statement on the same line.
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
    """Return whether a statement is a constant: a docstring, or the replacement of a notebook's magic."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, kind)


def _line(statement: ast.stmt) -> int:
    """Return the first line of a statement, decorators included."""
    decorators = getattr(statement, "decorator_list", ())
    return decorators[0].lineno if decorators else statement.lineno
