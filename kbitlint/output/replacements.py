"""The edits of a fix as replacements in the text of the file, with lines and columns as editors count them.

Edits name offsets or keys; of a notebook, offsets in its joined cells. A replacement is a range of the file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.errors import KbitlintError
from kbitlint.facts.span_edits import KIND, OverlapError
from kbitlint.files import json_edits
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime import content
from kbitlint.source import notebooks
from kbitlint.source.line_ends import LineEnds, unified

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kbitlint.violation import Edit

_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Replacement:
    """A range of a file, 1-based and in characters, and the text that takes its place."""

    line: int
    column: int
    end_line: int
    end_column: int
    text: str


def text_of(file: str) -> str | None:
    """Return the text of a file with its own line ends; None if it cannot be read as UTF-8."""
    try:
        return content.read(Path(file), _MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError):  # ValueError: not UTF-8
        return None


def replacements(file: str, edits: Iterable[Edit]) -> tuple[Replacement, ...]:
    """Return the edits of one fix as replacements in a file, in their order; none if one of them does not fit the text."""
    raw = text_of(file)
    if raw is None:
        return ()
    found = []
    for edit in edits:
        try:
            after = _after(Path(file), raw, edit)
        except (KbitlintError, OverlapError, ValueError):
            return ()
        if after is None:
            return ()
        if after != raw:
            found.append(_difference(unified(raw), unified(after)))
    return tuple(sorted(found, key=lambda item: (item.line, item.column)))


def source_text(file: str, cell: int | None = None) -> str | None:
    r"""Return the text of a file, or of one code cell of a notebook, with ``\n`` only; None if there is none."""
    raw = text_of(file)
    if raw is None or cell is None:
        return None if raw is None else unified(raw)
    try:
        cells = notebooks.read(raw).cells
    except notebooks.NotebookError:
        return None
    return next((one.source for one in cells if one.number == cell), None)


def changed_text(file: str, edits: Sequence[Edit]) -> tuple[str, str] | None:
    """Return the text of a file before and after edits, of a notebook that of its cells; None if they do not fit it."""
    raw, path = text_of(file), Path(file)
    if raw is None:
        return None
    try:
        if all(edit.kind in json_edits.KINDS for edit in edits):
            return unified(raw), unified(json_edits.changed(path, raw, list(edits)))
        if any(edit.kind != KIND for edit in edits):
            return None
        if path.suffix != ".ipynb":
            return unified(raw), unified(LineEnds.of(raw).written(edits))
        before = notebooks.read(raw)
        return before.joined(), notebooks.read(before.written(edits)).joined()
    except (KbitlintError, OverlapError, ValueError):
        return None


def _after(path: Path, raw: str, edit: Edit) -> str | None:
    """Return the text of a file after one edit; None if the edit changes no text."""
    if edit.kind in json_edits.KINDS:
        return json_edits.changed(path, raw, [edit])
    if edit.kind != KIND:
        return None
    written = notebooks.read(raw) if path.suffix == ".ipynb" else LineEnds.of(raw)
    return written.written([edit])


def _difference(before: str, after: str) -> Replacement:
    """Return the shortest replacement that turns one text into another."""
    start, most = 0, min(len(before), len(after))
    while start < most and before[start] == after[start]:
        start += 1
    end = 0
    while end < most - start and before[-1 - end] == after[-1 - end]:
        end += 1
    line, column = place_at(before, start)
    end_line, end_column = place_at(before, len(before) - end)
    return Replacement(line, column, end_line, end_column, after[start : len(after) - end])


def place_at(text: str, offset: int) -> tuple[int, int]:
    """Return the 1-based line and column of an offset."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
