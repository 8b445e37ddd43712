"""Patterns of configurations that others wrote, matched within a time limit: ``(a+)+$`` takes exponential time."""

from __future__ import annotations

import functools
import re

from kbitlint.runtime.deadline import OverdueError, deadline

#: Seconds for one match; a name of a module has some fifty characters, and takes microseconds.
_MOST = 1.0
_REPEATS = frozenset("*+{")
_overdue: set[str] = set()


def matches(pattern: str, text: str, *, whole: bool = False) -> bool | None:
    """Return whether a pattern matches a text from its start; None if it is no pattern, or takes too long.

    A pattern that took too long once is not tried again. Outside the main thread there is no time limit.

    Args:
        pattern: The pattern, from a configuration.
        text: The text: the path of a module or parameter.
        whole: Whether the pattern has to match the text to its end.
    """
    if pattern in _overdue:
        return None
    try:
        if _REPEATS.isdisjoint(pattern):
            return _found(pattern, text, whole=whole)
        with deadline(_MOST):
            return _found(pattern, text, whole=whole)
    except OverdueError:
        _overdue.add(pattern)
        return None
    except (re.error, RecursionError, OverflowError):
        return None


def _found(pattern: str, text: str, *, whole: bool) -> bool:
    compiled = _compiled(pattern)
    return (compiled.fullmatch(text) if whole else compiled.match(text)) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
