"""A .gitignore as patterns that match in time linear in the length of a path.

The patterns are pathspec's, with their stars as atomic groups.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from kbitlint.runtime import content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

MAX_TEXT = 200_000
MAX_LINES = 2_000
#: Most ``**`` of one pattern; each may match any part of a path.
MAX_DOUBLE = 3
#: pathspec's regular expressions of wildcards, and a sign for each; in literals, pathspec escapes these characters.
_SIGNS = {"[^/]*": "\0", "[^/]+": "\1", "[^/]": "\2", "(?:.+/)?": "\3", "(?:/.+)?": "\4"}


def patterns(path: Path, notes: list[str]) -> Any:
    """Return the patterns of a file, as a ``GitIgnoreSpec``; it is empty if the file is unreadable.

    Args:
        path: The .gitignore.
        notes: A list that receives one message for each part that is not read.
    """
    try:
        text = content.head(path, MAX_TEXT + 1).decode("utf-8", "replace")
    except OSError:
        return spec_of((), notes.append)
    if len(text) > MAX_TEXT:
        notes.append(f"{path}: what follows its first {MAX_TEXT:,} characters is not read")
    lines = text[:MAX_TEXT].splitlines()
    if len(lines) > MAX_LINES:
        notes.append(f"{path}: what follows line {MAX_LINES} is not read")

    def note(line: str) -> None:
        notes.append(f"{path}: line {lines.index(line) + 1} is no pattern and is not read")

    return spec_of(_readable(path, lines[:MAX_LINES], notes), note)


def spec_of(lines: Iterable[str], refused: Callable[[str], None]) -> Any:
    """Return lines of a .gitignore as a ``GitIgnoreSpec``, without those that are no patterns.

    Args:
        lines: The lines.
        refused: A function that is called with each line that is no pattern.
    """
    from pathspec import GitIgnoreSpec  # only a folder with a .gitignore needs it

    return GitIgnoreSpec([pattern for line in lines for pattern in _pattern(GitIgnoreSpec, line, refused)])


def _pattern(spec: Any, line: str, refused: Callable[[str], None]) -> list[Any]:
    try:
        patterns = list(spec.from_lines([line]).patterns)
        for pattern in patterns:
            regex = getattr(pattern, "regex", None)
            if regex is not None:
                pattern.regex = atomic(regex)
    except (ValueError, re.error):
        refused(line)
        return []
    return patterns


def _readable(path: Path, lines: list[str], notes: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if line.split("/").count("**") > MAX_DOUBLE and not line.startswith("#"):
            notes.append(f"{path}: line {number} holds ** more than {MAX_DOUBLE} times and is not read")
        else:
            yield line


def atomic(regex: re.Pattern[str]) -> re.Pattern[str]:
    """Return a pattern in which each star, but the last one of a part of the path, is atomic.

    Such a star takes the shortest match and keeps it. This loses no match: the text after a star of a glob contains no
    star, so its first position is as good as a later one. A lookahead and a backreference act as the atomic group, which
    ``re`` only has since Python 3.11.
    """
    text = regex.pattern
    for written, sign in _SIGNS.items():
        text = text.replace(written, sign)
    if not any(part.count("\0") > 1 for part in text.split("/")):
        return regex
    numbers = itertools.count()
    text = "/".join(_atomic_part(part, numbers) for part in text.split("/"))
    for written, sign in _SIGNS.items():
        text = text.replace(sign, written)
    return re.compile(text)


def _atomic_part(part: str, numbers: Iterator[int]) -> str:
    first, *rest = part.split("\0")
    if len(rest) < 2:  # one star, or none
        return part
    *between, last = rest
    taken = [f"(?=(?P<star{number}>\0?{piece}))(?P=star{number})" for piece, number in zip(filter(None, between), numbers)]  # noqa: B905  # the numbers do not end
    return f"{first}{''.join(taken)}\0{last}"
