"""The choice of edits for one pass of fixes over a text: fixes that do not overlap."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from kbitlint.facts.span_edits import OverlapError, bounds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.violation import Edit


def chosen(text: str, fixes: Iterable[tuple[Edit, ...]], apart: Iterable[tuple[int, int]] = ()) -> tuple[Edit, ...]:
    """Return the edits of each fix that is compatible with the fixes before it.

    A fix is applied whole or not at all. It waits for the next pass if it overlaps an earlier fix or changes the same
    call. Fixes that replace text are applied before fixes that only insert text: once a misspelt argument has its correct
    name, no fix needs to add it.

    Args:
        text: The text for which the edits were planned.
        fixes: The edits of each fix.
        apart: Start and end offset of each call, in characters.

    Raises:
        OverlapError: An edit was planned for another text.
    """
    fixes = sorted(fixes, key=lambda fix: all(not edit.arguments["was"] for edit in fix))
    within = _innermost(apart, {bounds(edit) for fix in fixes for edit in fix})
    done: dict[Edit, None] = {}
    taken: list[tuple[int, int]] = []
    calls: set[tuple[int, int]] = set()
    for fix in fixes:
        new = [edit for edit in fix if edit not in done]
        places = [bounds(edit) for edit in new]
        for edit, (start, end) in zip(new, places, strict=True):
            if text[start:end] != edit.arguments["was"]:
                raise OverlapError(f"{edit.path}: the text at {start} is not what it was")
        changed = {within[place] for place in places if place in within}
        if calls & changed or any(_touches(taken, place) for place in places):
            continue
        done.update(dict.fromkeys(new))
        calls |= changed
        for place in places:
            bisect.insort(taken, place)
    return tuple(done)


def _innermost(spans: Iterable[tuple[int, int]], places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the innermost of nested spans around each place; a place outside every span is left out."""
    coming = sorted(set(spans), key=lambda span: (-span[0], span[1]))
    around: list[tuple[int, int]] = []
    found = {}
    for start, end in sorted(places):
        while coming and coming[-1][0] <= start:
            while around and around[-1][1] <= coming[-1][0]:
                around.pop()
            around.append(coming.pop())
        while around and around[-1][1] < end:
            around.pop()
        if around:
            found[start, end] = around[-1]
    return found


def _touches(taken: list[tuple[int, int]], place: tuple[int, int]) -> bool:
    """Return whether a place overlaps or touches one of the taken ones, which are sorted and disjoint."""
    index = bisect.bisect_left(taken, place)
    return any(place[0] <= other[1] and other[0] <= place[1] for other in taken[max(index - 1, 0) : index + 1])
