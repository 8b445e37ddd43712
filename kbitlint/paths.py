"""Dotted module paths: folding ``model.layers.0..31`` into ``model.layers.*``."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")


def fold(path: str) -> str:
    """The path with every numeric component replaced by ``*``.

    >>> fold("model.layers.7.mlp.experts.31.up_proj")
    'model.layers.*.mlp.experts.*.up_proj'
    """
    return _INDEX.sub("*", path)


def fold_all(paths: Iterable[str]) -> list[tuple[str, int]]:
    """Each distinct folded path with how many paths fold into it, in the order of first appearance.

    A path that stands alone keeps its numbers: one bad layer of 32 must be findable.
    """
    paths = list(paths)
    counts = Counter(map(fold, paths))
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(fold(path), path)
    return [(folded if count > 1 else first[folded], count) for folded, count in counts.items()]


def spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The (first, last) of each run of neighbours.

    >>> spans([5, 0, 1, 2])
    [(0, 2), (5, 5)]
    """
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def matches(pattern: str, path: str) -> bool:
    """Whether a glob names a dotted path: ``*`` stands within a component, ``**`` for any number of components.

    >>> matches("model.layers.*.mlp.**", "model.layers.7.mlp.experts.3.up_proj")
    True
    """
    return _compiled(pattern).fullmatch(path) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern == "**":
        return re.compile(".*", re.DOTALL)
    parts = [_ANY if part == "**" else r"[^.]*".join(map(re.escape, part.split("*"))) for part in pattern.split(".")]
    joined = r"\.".join(parts)
    return re.compile(joined.replace(rf"\.{_ANY}", r"(?:\..+)?").replace(rf"{_ANY}\.", r"(?:.+\.)?"), re.DOTALL)


_ANY = "<any>"
