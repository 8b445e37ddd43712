"""Dotted module paths: folding ``model.layers.0..31`` into ``model.layers.*``, and globs."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")


def fold(path: str) -> str:
    """Return the path with every numeric component replaced by ``*``.

    >>> fold("model.layers.7.mlp.experts.31.up_proj")
    'model.layers.*.mlp.experts.*.up_proj'
    """
    return _INDEX.sub("*", path)


def fold_all(paths: Iterable[str]) -> list[tuple[str, int]]:
    """Return (folded path, number of paths) for each folded path, in the order of first appearance.

    A single path keeps its numbers, so that one bad layer of 32 can be found.
    """
    paths = list(paths)
    counts = Counter(map(fold, paths))
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(fold(path), path)
    return [(folded if count > 1 else first[folded], count) for folded, count in counts.items()]


def spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the (first, last) of each run of consecutive numbers.

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
    """Return whether a glob matches a dotted path: ``*`` within one component, ``**`` for any number of components.

    >>> matches("model.layers.*.mlp.**", "model.layers.7.mlp.experts.3.up_proj")
    True
    """
    parts, names = pattern.split("."), path.split(".")
    part = name = 0
    after, mark = -1, 0
    while name < len(names):
        if part < len(parts) and parts[part] == "**":
            part = after = part + 1
            mark = name
        elif part < len(parts) and _fits(parts[part], names[name]):
            part, name = part + 1, name + 1
        elif after >= 0:  # let the last ** match one more component
            part, name = after, mark + 1
            mark += 1
        else:
            return False
    return all(rest == "**" for rest in parts[part:])


def _fits(part: str, name: str) -> bool:
    """Return whether a component with ``*`` in it matches a name.

    Each piece between two ``*`` matches as early as possible.
    """
    first, *rest = part.split("*")
    if not rest:
        return part == name
    *between, last = rest
    at = len(first)
    if not name.startswith(first):
        return False
    for piece in between:
        found = name.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(name) - len(last) >= at and name.endswith(last)


def matches_key(key: str, path: str) -> bool:
    r"""Return whether a plain key of ``rank_pattern`` or ``alpha_pattern`` matches a module, as PEFT 0.21 matches it.

    PEFT compares ``(.*\.)?(key)$`` with the path (peft/utils/other.py). A key that starts with ``^`` is a whole path.

    Args:
        key: A name or a path, possibly behind ``^``, without other signs of a regular expression.
        path: The path of the module below the PeftModel.

    >>> matches_key("q_proj", "model.layers.0.self_attn.q_proj")
    True
    >>> matches_key("^q_proj", "model.layers.0.self_attn.q_proj")
    False
    """
    return path == key.removeprefix("^") or (not key.startswith("^") and path.endswith(f".{key}"))
