"""Ignore comments: ``# kbitlint: ignore[KB401] reason`` silences a violation that the user has accepted."""

from __future__ import annotations

import ast
import bisect
import io
import re
import tokenize
from typing import TYPE_CHECKING

from kbitlint.facts.values import Ignore
from kbitlint.source.nodes import walk

if TYPE_CHECKING:
    from collections.abc import Iterable

_COMMENT = re.compile(r"#\s*kbitlint:\s*ignore(?:\[(?P<names>[^\]\n]*)\])?(?P<reason>[^\n]*)")


Found = tuple[int | None, str, str]
"""The (line, code, slug) of a violation; line is None if the violation has none."""


def silencing(ignores: Iterable[Ignore], found: Iterable[Found]) -> tuple[frozenset[Ignore], frozenset[Found]]:
    """Return the comments that silence a violation, and the violations that they silence."""
    at: dict[int, set[tuple[str, str]]] = {}
    for line, code, slug in found:
        if line is not None:
            at.setdefault(line, set()).add((code, slug))
    lines = sorted(at)
    groups: dict[tuple[int, int], list[Ignore]] = {}
    for ignore in ignores:
        groups.setdefault((ignore.first, ignore.last), []).append(ignore)
    used: set[Ignore] = set()
    silenced: set[Found] = set()
    for (first, last), group in groups.items():
        inside = lines[bisect.bisect_left(lines, first) : bisect.bisect_right(lines, last)]
        rules = frozenset().union(*(at[line] for line in inside))
        named = {rule: [ignore for ignore in group if ignore.names_rule(*rule)] for rule in rules}
        used.update(*named.values())
        silenced |= {(line, *rule) for line in inside for rule in at[line] if named[rule]}
    return frozenset(used), frozenset(silenced)


def ignores(text: str, module: ast.Module | None = None) -> tuple[Ignore, ...]:
    """Return the ignore comments of a text.

    Args:
        text: A script or a configuration.
        module: The syntax tree of a Python text, in which strings are not searched. None for a configuration.
    """
    if "kbitlint:" not in text:
        return ()
    statements = _statements(module) if module is not None else {}
    found = []
    for start, line in _comments(text) if module is not None else _matches(text):
        match = _COMMENT.match(text, start)
        if match is None:
            continue
        names = tuple(name.strip() for name in (match["names"] or "").split(",") if name.strip())
        alone = not text[text.rfind("\n", 0, start) + 1 : start].strip()
        first = line + 1 if alone and line not in statements else line
        first, last = statements.get(first, (first, first))
        found.append(Ignore(names, first, last, start, match.end(), line))
    return tuple(found)


def _matches(text: str) -> list[tuple[int, int]]:
    found = []
    counted, line = 0, 1
    for match in _COMMENT.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        found.append((counted, line))
    return found


def _comments(text: str) -> list[tuple[int, int]]:
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    try:
        return [
            (starts[token.start[0] - 1] + token.start[1], token.start[0])
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT
        ]
    except (tokenize.TokenError, SyntaxError, IndexError):
        return []


def _statements(module: ast.Module) -> dict[int, tuple[int, int]]:
    """Return the (first, last) line of the innermost statement around each line; for a block, only its head counts."""
    found: dict[int, tuple[int, int]] = {}
    for node in walk(module):
        if not isinstance(node, ast.stmt):
            continue
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
        for line in range(node.lineno, max(last, node.lineno) + 1):
            found[line] = (node.lineno, max(last, node.lineno))
    return found
