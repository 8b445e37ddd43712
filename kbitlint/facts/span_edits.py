"""The edit that replaces a stretch of a text: its name and its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbitlint.violation import Edit

#: ``start`` and ``end`` are offsets in the text as Python's ``open()`` reads it, where each line end is one character; of a
#: notebook, in its code cells joined by line ends
KIND = "replace-span"


class OverlapError(ValueError):
    """An edit that no longer fits the text."""


def bounds(edit: Edit) -> tuple[int, int]:
    """Return the start and end offset of an edit.

    Raises:
        OverlapError: If the edit has no offsets.
    """
    start, end = edit.arguments["start"], edit.arguments["end"]
    if not isinstance(start, int) or not isinstance(end, int):
        raise OverlapError(f"{edit.path}: an edit without bounds")
    return start, end


def blanks_before(text: str, end: int) -> int:
    """Return where the blanks before an offset start, less one character."""
    while end > 0 and text[end - 1].isspace():
        end -= 1
    return max(end - 1, 0)
