"""What holds of a Python text after its edits: it compiles, and the statements that no edit touches are the same."""

from __future__ import annotations

import ast
import bisect
import operator
import warnings
from typing import TYPE_CHECKING

from kbitlint.facts.span_edits import bounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kbitlint.violation import Edit


def fault_of(text: str, *, cell: bool = False) -> str:
    """Return why a text does not compile; empty where it does. ``ast.parse`` accepts a keyword that is given twice.

    Args:
        text: A script, or a cell of a notebook without its magics.
        cell: Whether it may await at its top level, as cells may.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences of other people's strings
            compile(text, "<text>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if cell else 0, dont_inherit=True)
    except SyntaxError as error:
        return f"{error.msg}, line {error.lineno}"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return type(error).__name__
    return ""


def strays(before: str, after: str, edits: Iterable[Edit]) -> str:
    """Return the line of the first statement that edits have changed without touching it; empty where there is none.

    Args:
        before: A Python text that parses.
        after: The text that edits have made of it, which parses too.
        edits: What was replaced in ``before``.
    """
    try:
        return _stray(before, after, edits)
    except RecursionError:  # deeper than anything that is followed
        return ""


def _stray(before: str, after: str, edits: Iterable[Edit]) -> str:
    starts = [0, *(index + 1 for index, letter in enumerate(before) if letter == "\n")]
    touched = sorted(filter(None, (_lines(edit, starts) for edit in edits)))
    there = _statements(after)
    for statement, first, last in _statements(before):
        if not _meets(touched, first, last) and not any(statement == other for other, _, _ in there):
            return f"line {first}"
    return ""


def _lines(edit: Edit, starts: list[int]) -> tuple[int, int] | None:
    """Return the first and the last line that an edit changes; None where it adds whole lines."""
    start, end = bounds(edit)
    first, last = bisect.bisect_right(starts, start), bisect.bisect_right(starts, end)
    whole = starts[first - 1] == start and str(edit.arguments["text"])[-1:] in ("", "\n")
    if whole and starts[last - 1] == end:
        return (first, last - 1) if end > start else None
    return first, last


def _meets(touched: list[tuple[int, int]], first: int, last: int) -> bool:
    """Return whether one of the stretches, which are sorted and apart, shares a line with a statement."""
    index = bisect.bisect_right(touched, last, key=operator.itemgetter(0))
    return index > 0 and touched[index - 1][1] >= first


def _statements(text: str) -> Iterator[tuple[str, int, int]]:
    """Return each statement, or head of a block, as (its syntax below the blocks around it, first line, last line)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see fault_of
        module = ast.parse(text)
    return _below(module, "")


def _below(node: ast.AST, around: str) -> Iterator[tuple[str, int, int]]:
    """As ``_statements``, for the blocks of one node."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else ():
            if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
                yield from _statement(child, f"{around}/{type(node).__name__}.{name}")


def _statement(node: ast.stmt | ast.ExceptHandler | ast.match_case, around: str) -> Iterator[tuple[str, int, int]]:
    blocks = [name for name, value in ast.iter_fields(node) if _is_block(value)]
    head = ", ".join(ast.dump(part) for part in _parts(node, blocks))
    first = _first_line(node)
    inner = [_first_line(child) for name in blocks for child in getattr(node, name)]
    last = min(inner) - 1 if inner else getattr(node, "end_lineno", first) or first
    yield f"{around} {type(node).__name__}({head})", first, max(first, last)
    yield from _below(node, around)


def _is_block(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], (ast.stmt, ast.ExceptHandler, ast.match_case))


def _parts(node: ast.AST, blocks: list[str]) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name not in blocks:
            for part in value if isinstance(value, list) else [value]:
                yield part if isinstance(part, ast.AST) else ast.Constant(part)


def _first_line(node: ast.AST) -> int:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno
    decorators = getattr(node, "decorator_list", ())
    return decorators[0].lineno if decorators else int(getattr(node, "lineno", 0))
