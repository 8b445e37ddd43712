"""Checks of a Python text after its edits: it compiles, and statements outside the edits are unchanged."""

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
    """Return why a text does not compile; empty if it does.

    ``compile`` is stricter than ``ast.parse``, which accepts a repeated keyword argument.

    Args:
        text: A script, or a cell of a notebook without its magics.
        cell: Whether the top level may use ``await``, as in a notebook.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in the script's strings
            compile(text, "<text>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if cell else 0, dont_inherit=True)
    except SyntaxError as error:
        return f"{error.msg}, line {error.lineno}"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return type(error).__name__
    return ""


def strays(before: str, after: str, edits: Iterable[Edit]) -> str:
    """Return the line of the first statement that has changed although no edit overlaps it; empty if there is none.

    Args:
        before: A Python text that parses.
        after: The text after the edits, which parses too.
        edits: The edits, with offsets in ``before``.
    """
    try:
        return _stray(before, after, edits)
    except RecursionError:  # the interpreter does not follow so deep a text
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
    """Return the first and the last line that an edit changes; None if it only inserts whole lines."""
    start, end = bounds(edit)
    first, last = bisect.bisect_right(starts, start), bisect.bisect_right(starts, end)
    whole = starts[first - 1] == start and str(edit.arguments["text"])[-1:] in ("", "\n")
    if whole and starts[last - 1] == end:
        return (first, last - 1) if end > start else None
    return first, last


def _meets(touched: list[tuple[int, int]], first: int, last: int) -> bool:
    """Return whether a statement shares a line with one of the touched ranges, which are sorted and disjoint."""
    index = bisect.bisect_right(touched, last, key=operator.itemgetter(0))
    return index > 0 and touched[index - 1][1] >= first


def _statements(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each statement, or head of a block, as (key, first line, last line).

    The key holds the syntax of the statement and the kinds of the blocks around it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see fault_of
        module = ast.parse(text)
    return _below(module, "")


def _below(node: ast.AST, around: str) -> Iterator[tuple[str, int, int]]:
    """Yield the statements in the blocks of one node; see ``_statements``."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else ():
            if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
                yield from _statement(child, f"{around}/{type(node).__name__}.{name}")


def _statement(node: ast.stmt | ast.ExceptHandler | ast.match_case, around: str) -> Iterator[tuple[str, int, int]]:
    blocks = [name for name, value in ast.iter_fields(node) if _is_block(value)]
    head = ", ".join(_dumped(part) for part in _parts(node, blocks))
    first = _first_line(node)
    inner = [_first_line(child) for name in blocks for child in getattr(node, name)]
    last = min(inner) - 1 if inner else getattr(node, "end_lineno", first) or first
    yield f"{around} {type(node).__name__}({head})", first, max(first, last)
    yield from _below(node, around)


def _dumped(part: ast.AST) -> str:
    try:
        return ast.dump(part)
    except ValueError:  # Python prints no integer of more than 4300 digits in decimal (sys.set_int_max_str_digits)
        return ast.dump(_InHexadecimal().visit(part))


class _InHexadecimal(ast.NodeTransformer):
    """Replaces integers by their digits to the base of 16, which Python prints at any length."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:  # ast looks for this name
        return ast.Constant(hex(node.value)) if type(node.value) is int else node


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
