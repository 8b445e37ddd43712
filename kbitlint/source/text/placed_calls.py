"""The calls of one round of a loop in their order, and what a file assigns to the names that they use."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from kbitlint.source.nodes import children, last_name, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPS = (ast.For, ast.AsyncFor, ast.While)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class At(NamedTuple):
    """A call, with the branches around it."""

    call: ast.Call
    branches: tuple[int, ...]


def placed(node: ast.AST, branches: tuple[int, ...] = ()) -> Iterator[At]:
    """Yield the calls of one round in the order of the text, without those of inner loops and functions."""
    for child in children(node):
        if isinstance(child, (*LOOPS, *FUNCTIONS, ast.Lambda, ast.ClassDef)):
            continue
        inner = branches
        if isinstance(node, (ast.If, ast.Try, ast.IfExp)):
            body = getattr(node, "body", None)
            inner = (*branches, node.lineno if isinstance(body, list) and child in body else -node.lineno)
        yield from placed(child, inner)
        if isinstance(child, ast.Call):
            yield At(child, inner)


def assigned(module: ast.Module) -> dict[str, list[ast.expr]]:
    """Return the values that a file assigns to each name or attribute."""
    found: dict[str, list[ast.expr]] = {}
    for node in walk(module):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)
            pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]  # type: ignore[attr-defined]
            for name, one in pairs:
                found.setdefault(ast.unparse(name), []).append(one)
    return found


def made(module: ast.Module, name: str) -> dict[str, list[ast.expr]]:
    """Return the values that the file assigns to each name to which it assigns a call of a class."""
    return {key: values for key, values in assigned(module).items() if any(calls(value, name) for value in values)}


def calls(node: ast.AST, *names: str) -> bool:
    """Return whether a node is a call of a function with one of these last names."""
    return isinstance(node, ast.Call) and last_name(node.func) in names


def owner(node: ast.AST) -> str:
    """Return the object whose method a call calls, as it is written; empty if it calls a function."""
    function = node.func if isinstance(node, ast.Call) else None
    return ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""


def optimizes(name: str) -> bool:
    """Return whether a name is that of an optimizer, or of the scaler that steps it."""
    return "opt" in name.lower() or "scaler" in name.lower()
