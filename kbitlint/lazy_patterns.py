"""``re`` whose patterns are compiled when they are first used: a start imports 150 of them, and an audit uses 40.

A module writes ``from kbitlint import lazy_patterns as re`` in place of ``import re``, and its patterns as always.
"""

from __future__ import annotations

import re
from re import DOTALL, IGNORECASE, MULTILINE, Match, Pattern, escape, findall, fullmatch, match, search, split, sub
from typing import TYPE_CHECKING, Any

__all__ = [
    "DOTALL",
    "IGNORECASE",
    "MULTILINE",
    "Match",
    "Pattern",
    "compile",
    "escape",
    "findall",
    "fullmatch",
    "match",
    "search",
    "split",
    "sub",
]


class _Lazy:
    """A pattern until one of its methods is first read."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self._given = pattern, flags

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the compiled pattern, and keep it."""
        value = getattr(re.compile(*self._given), name)  # type: ignore[type-var]  # a text or bytes
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    from re import compile  # noqa: A004  # the name is that of ``re``
else:

    def compile(pattern, flags=0):  # noqa: A001, ANN001, ANN201  # as above
        """Return a pattern that is compiled when it is first used."""
        return _Lazy(pattern, flags)
