"""Line ends: texts with line feeds only, and their conversion back to the line ends of the file."""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING

from kbitlint.facts.span_edits import bounds
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.violation import Edit


@dataclass(frozen=True, slots=True)
class LineEnds:
    r"""A text with the line ends of its file, and the same text with ``\n`` only."""

    raw: str
    text: str
    wide: tuple[int, ...] = ()
    """The offsets in ``text`` of line ends that take two characters in ``raw``."""

    @classmethod
    def of(cls, raw: str) -> LineEnds:
        """Return the two texts of a file; CRLF, CR and LF end a line, as in Python's tokenizer, and no other character does."""
        if "\r" not in raw:
            return cls(raw, raw)
        wide = tuple(match.start() - before for before, match in enumerate(re.finditer("\r\n", raw)))
        return cls(raw, unified(raw), wide)

    def written(self, edits: Iterable[Edit]) -> str:
        """Return the raw text after edits of ``text``; a new line has the same end as the line at the edit."""
        raw = self.raw
        places = sorted((bounds(edit), str(edit.arguments["text"])) for edit in edits)
        for (start, end), code in reversed(places):
            first, last, new = _narrowed(self.text, start, end, code)
            new = new.replace("\n", self._end_at(first))
            raw = raw[: self._offset(first)] + new + raw[self._offset(last) :]
        return raw

    def _offset(self, offset: int) -> int:
        return offset + bisect.bisect_left(self.wide, offset)

    def _end_at(self, offset: int) -> str:
        """Return the line end of the line at an offset; that of the line before it if it has none."""
        place = self.text.find("\n", offset)
        place = place if place >= 0 else self.text.rfind("\n", 0, offset)
        if place < 0:
            return "\n"
        start = self._offset(place)
        return "\r\n" if self.raw.startswith("\r\n", start) else self.raw[start]


def unified(text: str) -> str:
    r"""Return a text whose lines all end with ``\n``."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _narrowed(text: str, start: int, end: int, code: str) -> tuple[int, int, str]:
    """Return an edit without the unchanged characters at its start and its end."""
    before = text[start:end]
    head = _common(before, code)
    before, code = before[head:], code[head:]
    tail = _common(before[::-1], code[::-1])
    return start + head, end - tail, code[: len(code) - tail]


def _common(one: str, other: str) -> int:
    """Return the length of the longest common prefix of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
