"""Python files that were exported from notebooks: magics among the lines, and cells that are no Python.

Expressions without effect replace the magics, and blanks replace a cell that does not parse, so each character keeps its
offset.
"""

from __future__ import annotations

import ast
import re
import warnings

from kbitlint.source.notebooks import blank, without_magics

#: the lines with which exports start a cell: of Databricks, of Jupyter, and of editors
_CELL = re.compile(r"^# (?:COMMAND -{3,}|In\[[\d ]*\]|%%|-{3,} ?%%)", re.MULTILINE)
#: Number of cells or blocks that are left out of one file.
_MOST = 16


def parsable(text: str) -> tuple[str, str] | None:
    """Return the part of an export that parses, at unchanged offsets, and what is left out of it; None for other files.

    Args:
        text: A text that is no Python.
    """
    masked = without_magics(text)
    starts = [found.start() for found in _CELL.finditer(text)]
    if masked == text and not starts:
        return None
    left = ""
    for _ in range(_MOST):
        fault = _fault(masked)
        if fault is None:
            return masked, left
        line, reason = fault
        left = left or f"is not valid Python at line {line} ({reason}), and the rest is judged without the code around it"
        shorter = _without(masked, line, starts)
        if shorter == masked:
            return None
        masked = shorter
    return None


def _fault(text: str) -> tuple[int, str] | None:
    """Return the line at which a text stops to be Python, and why; None if it is Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except SyntaxError as error:
        return error.lineno or 1, error.msg
    except (ValueError, RecursionError, MemoryError) as error:
        return 1, type(error).__name__
    return None


def _without(text: str, line: int, starts: list[int]) -> str:
    """Return a text with the cell around a line blank, or else the unindented block around it."""
    ends = [index + 1 for index, letter in enumerate(text) if letter == "\n"]
    at = ([0, *ends])[min(line - 1, len(ends))]
    if starts:
        start = max((start for start in starts if start <= at), default=0)
        end = min((start for start in starts if start > at), default=len(text))
    else:
        blocks = [0, *(place for place in ends if text[place : place + 1].strip())]
        start = max(place for place in blocks if place <= at)
        end = min((place for place in blocks if place > at), default=len(text))
    return text[:start] + blank(text[start:end]) + text[end:]
