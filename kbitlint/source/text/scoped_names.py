"""The names of each function of a script, with the expressions that are assigned to them, read from the text."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, TypeVar

from kbitlint.source.nodes import children, walk

if TYPE_CHECKING:
    from collections.abc import Iterable

    _Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef


class Names:
    """The assignments of one function or of the module.

    Args:
        scope: The function or the module.
        outer: The names of the module; None for the module itself.
    """

    def __init__(self, scope: _Scope, outer: Names | None) -> None:
        self.outer = outer
        self.scope = scope
        self.calls: list[ast.Call] = []
        self.reads: list[ast.Attribute] = []
        self._hidden: tuple[str, ...] = ()
        self.bound: dict[str, list[tuple[int, ast.expr | None, bool]]] = {}
        self._changed: set[str] = set()
        if not isinstance(scope, ast.Module):
            given = scope.args
            names = (*given.posonlyargs, *given.args, *given.kwonlyargs)
            self.bound |= {one.arg: [(scope.lineno, None, False)] for one in names}
        for statement in scope.body:
            self._visit(statement, branch=False)

    def _visit(self, node: ast.AST, *, branch: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return
        if isinstance(node, ast.Lambda):
            earlier, self._hidden = self._hidden, (*self._hidden, *(one.arg for one in node.args.args))
            self._visit(node.body, branch=True)
            self._hidden = earlier
            return
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Load)
            and name_of(node.value) not in ("", *self._hidden)
        ):
            self.reads.append(node)
        if isinstance(node, ast.Call):
            self.calls.append(node)
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("pop", "update") and name_of(node.func.value):
                self._changed.add(name_of(node.func.value))
        if isinstance(node, ast.Assign):
            plain = len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
            for target in node.targets:
                self._target(target, node.value if plain else None, node.lineno, branch=branch)
        elif isinstance(node, (ast.For, ast.AugAssign, ast.AnnAssign, ast.NamedExpr)):
            self._target(node.target, None, node.lineno, branch=True)
        inside = branch or isinstance(node, (ast.If, ast.For, ast.While, ast.Try, ast.Match))
        for child in children(node):
            self._visit(child, branch=inside)

    def _target(self, target: ast.expr, value: ast.expr | None, line: int, *, branch: bool) -> None:
        for one in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
            if isinstance(one, ast.Name):
                self.bound.setdefault(one.id, []).append((line, value, branch))
            elif isinstance(one, ast.Subscript):
                self._changed.add(name_of(one.value))

    def value(self, node: ast.expr) -> ast.expr:
        """Return the expression that a name certainly has; the node itself if there is none."""
        name = name_of(node)
        bound = self.bound.get(name)
        if bound is None:
            return node if self.outer is None or not name else self.outer.value(node)
        found = bound[0][1] if len(bound) == 1 and name not in self._changed else None
        return node if found is None else found

    def values(self, name: str) -> list[ast.expr | None] | None:
        """Return every expression that is bound to a name, None among them for an unknown one; None if nothing is."""
        bound = self.bound.get(name)
        if bound is None:
            return None if self.outer is None else self.outer.values(name)
        return [value for _, value, _ in bound]


_N = TypeVar("_N", bound=Names)
_T = TypeVar("_T")


def unless_deep(found: Iterable[_T]) -> tuple[_T, ...]:
    """Return what a search finds; nothing if an expression is nested too deeply for it."""
    try:
        return tuple(found)
    except RecursionError:
        return ()


def scopes(module: ast.Module, kind: type[_N]) -> list[_N]:
    """Return the names of the module and of each function in it."""
    top = kind(module, None)
    return [top, *(kind(node, top) for node in walk(module) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))]


def name_of(node: ast.expr) -> str:
    """Return the name that an expression is; empty if it is none."""
    return node.id if isinstance(node, ast.Name) else ""
