"""Dotted module paths: folding ``model.layers.0..31`` into ``model.layers.*``."""

from __future__ import annotations

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
