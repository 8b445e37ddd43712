"""Lists that a function fills in a loop: what is appended, and whether each round appends once."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from kbitlint.source.text.bindings import Def

#: paths through the body of a loop with more appends than this are not told apart
_MOST = 4


class Appended(NamedTuple):
    """What a loop appends to a list."""

    values: tuple[ast.expr, ...]
    uneven: int
    """The line of the loop, if some of its rounds append nothing or several items; else 0."""


class _Unknown(Exception):  # noqa: N818  # no error: the loop leaves in a way that is not followed
    """A statement that decides the number of items in a way which is not followed."""


def appended(function: Def, name: str, each: AbstractSet[str]) -> Appended | None:
    """Return what the one loop of a function appends to a list; None if that is not certain.

    Args:
        function: The function.
        name: The name of the list, which starts empty.
        each: The names of the sequences that the loop has to go through.
    """
    uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
    starts = [node for node in _statements(function) if _is_start(node, name)]
    loops = [node for node in _statements(function) if isinstance(node, ast.For) and _mentions(node, name)]
    if len(starts) != 1 or len(loops) != 1 or loops[0].orelse or not _over(loops[0].iter) & each:
        return None
    inside = [one for node in ast.walk(loops[0]) if (one := _value(node, name)) is not None]
    results = sum(isinstance(node, ast.Return) and _mentions(node, name) for node in ast.walk(function))
    if not inside or len(uses) != len(inside) + 1 + results:
        return None  # the list is used in another way too
    try:
        through, turned = _counts(loops[0].body, name)
    except _Unknown:
        return None
    return Appended(tuple(inside), loops[0].lineno if through | turned != {1} else 0)


def _statements(function: Def) -> list[ast.stmt]:
    return [] if isinstance(function, ast.Lambda) else function.body


def _is_start(node: ast.stmt, name: str) -> bool:
    """Return whether a statement binds the name to an empty list."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    named = len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == name
    return named and isinstance(value, ast.List) and not value.elts


def _over(node: ast.expr) -> set[str]:
    """Return the names in what a loop goes through."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))


def _value(node: ast.AST, name: str) -> ast.expr | None:
    """Return what a node appends to the list: ``scores.append(x)``; None for another node."""
    owner = node.func if isinstance(node, ast.Call) else None
    if not isinstance(node, ast.Call) or not isinstance(owner, ast.Attribute) or owner.attr != "append":
        return None
    named = isinstance(owner.value, ast.Name) and owner.value.id == name
    return node.args[0] if named and len(node.args) == 1 else None


def _counts(body: list[ast.stmt], name: str) -> tuple[set[int], set[int]]:
    """Return the possible numbers of items that a block appends: of paths to its end, and of paths that continue the loop.

    Raises:
        _Unknown: The block leaves the loop, or fills the list in an inner loop.
    """
    through, turned = {0}, set[int]()
    for node in body:
        if not through:
            break
        if isinstance(node, ast.Continue):
            return set(), turned | through
        if isinstance(node, ast.Raise):
            return set(), turned
        more, ends = _of_statement(node, name)
        turned |= {one + end for one in through for end in ends}
        through = {one + further for one in through for further in more}
        if len(through | turned) > _MOST:
            raise _Unknown
    return through, turned


def _of_statement(node: ast.stmt, name: str) -> tuple[set[int], set[int]]:
    """Return the possible numbers of items that a statement appends: on its way to the next, and on its way to a new round."""
    if isinstance(node, (ast.Return, ast.Break)):
        raise _Unknown
    if isinstance(node, ast.If):
        return _joined([_counts(node.body, name), _counts(node.orelse, name)])
    if isinstance(node, ast.Try):
        if any(_mentions(one, name) for one in node.finalbody):
            raise _Unknown
        ways = [[*node.body, *node.orelse], *(one.body for one in node.handlers)]
        return _joined([_counts(one, name) for one in ways])
    if isinstance(node, ast.With):
        return _counts(node.body, name)
    if isinstance(node, (ast.For, ast.While, ast.Match, ast.FunctionDef)) and (_mentions(node, name) or _leaves(node)):
        raise _Unknown
    found = sum(_value(one, name) is not None for one in ast.walk(node))
    if found and not isinstance(node, ast.Expr):
        raise _Unknown
    return {found}, set()


def _leaves(node: ast.stmt) -> bool:
    return any(isinstance(one, ast.Return) for one in ast.walk(node))


def _joined(ways: list[tuple[set[int], set[int]]]) -> tuple[set[int], set[int]]:
    return set().union(*(one for one, _ in ways)), set().union(*(one for _, one in ways))
