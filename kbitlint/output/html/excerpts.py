"""Excerpts of the source around a violation, and the diff of its fix, for the HTML page."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.files.project import file_of
from kbitlint.lazy_dataclass import dataclass
from kbitlint.output.replacements import changed_text, source_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kbitlint.violation import Edit, Violation

#: lines shown above and below that of the violation
_AROUND = 2
_WIDEST = 200
#: excerpts of one cause
MOST = 3
_CELL = re.compile(r"cell (\d+)\b")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of a file around a violation, and the diff of its fix."""

    where: str
    """The file and the line; for a notebook also the cell."""
    lines: tuple[tuple[int, str, bool], ...]
    """(number, text, whether the violation is on it) of each line."""
    diff: tuple[str, ...]
    """The lines of a unified diff without its head; empty if no edit belongs to the violation."""


def excerpts(target: str, violations: Sequence[Violation]) -> tuple[Excerpt, ...]:
    """Return excerpts for the first places of a cause; none for files that cannot be read or have changed meanwhile.

    Args:
        target: The target of the report, to which files are relative.
        violations: The violations of one cause.
    """
    found: dict[tuple[str, int], Excerpt] = {}
    for violation in violations:
        at = violation.at
        if not (at.file and at.line) or len(found) == MOST:
            continue
        cell = _CELL.match(at.path)
        text = source_text(file_of(target, at.file), int(cell[1]) if cell else None)
        lines = _around(text, at.line, at.code) if text is not None else ()
        if lines and (str(at), at.line) not in found:
            found[str(at), at.line] = Excerpt(str(at), lines, tuple(_diff(target, violation)))
    return tuple(found.values())


def _around(text: str, line: int, code: str) -> tuple[tuple[int, str, bool], ...]:
    """Return the lines around a violation; none if its line has another text than in the report."""
    every = text.split("\n")
    if line > len(every) or (code and every[line - 1].strip() != code):
        return ()
    first, last = max(line - _AROUND, 1), min(line + _AROUND, len(every))
    return tuple((number, _clipped(every[number - 1]), number == line) for number in range(first, last + 1))


def _clipped(line: str) -> str:
    return line if len(line) <= _WIDEST else line[:_WIDEST] + "…"


def _diff(target: str, violation: Violation) -> Iterator[str]:
    """Yield the changed lines of the fix of one violation, with one line around them."""
    edits: tuple[Edit, ...] = violation.fix.edits if violation.fix is not None else ()
    file = file_of(target, violation.at.file)
    if not edits or any(edit.path and Path(edit.path).name != Path(file).name for edit in edits):
        return
    texts = changed_text(file, edits)
    if texts is not None:
        before, after = (text.split("\n") for text in texts)
        lines = difflib.unified_diff(before, after, lineterm="", n=1)
        yield from (_clipped(line) for line in lines if not line.startswith(("---", "+++")))
