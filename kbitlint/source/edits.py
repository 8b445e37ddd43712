"""One pass of fixes over a text: the edits that can be made beside each other."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from kbitlint.facts.span_edits import OverlapError, bounds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.violation import Edit


def chosen(text: str, fixes: Iterable[tuple[Edit, ...]], apart: Iterable[tuple[int, int]] = ()) -> tuple[Edit, ...]:
    """The edits of every fix that can be made beside the earlier ones.

    A fix is made whole or not at all. One that overlaps an earlier fix, or changes the same call, is planned anew on the
    next pass over the changed text. Fixes that change what is given come before those that add something: a misspelt
    argument that gets its name need not be added.

    Args:
        text: What the edits were planned for.
        fixes: The edits of each fix.
        apart: Where each call starts and ends.

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
    """The innermost of nested spans that holds each place, for those that lie in one."""
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
    """Whether a place meets one of those that are taken, which are sorted and apart."""
    index = bisect.bisect_left(taken, place)
    return any(place[0] <= other[1] and other[0] <= place[1] for other in taken[max(index - 1, 0) : index + 1])
