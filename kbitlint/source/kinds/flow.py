"""The statements of a script, followed in their order with the kinds of its names."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from kbitlint.source.kinds.expressions import Expressions
from kbitlint.source.kinds.kind import Kind, joined
from kbitlint.source.nodes import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kbitlint.facts.object_faults import ObjectFault

    _Function = ast.FunctionDef | ast.AsyncFunctionDef

#: how often the body of one function is followed, each time with the kinds of one call
_TIMES = 3
#: calls inside of calls that are followed
_DEPTH = 6
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_QUESTIONS = frozenset(("hasattr", "getattr", "isinstance", "callable", "type", "issubclass"))


class Inside(NamedTuple):
    """What is inside of a function."""

    bound: tuple[str, ...]
    parameters: tuple[str, ...]
    yields: bool
    functions: tuple[_Function, ...]


class Flow(Expressions):
    """Follows a module, its functions at their calls, and at last the functions that nothing calls.

    Args:
        versions: The versions of the libraries.
        text: The text of the script.
        ranked: Whether several processes run it, so that an Accelerator wraps its models in DDP.
    """

    def __init__(self, versions: Mapping[str, str], text: str, *, ranked: bool = False) -> None:
        super().__init__(versions, text)
        self.ranked = ranked
        self.shared: set[str] = set()
        self._times: dict[int, int] = {}
        self._read: dict[int, Inside] = {}
        self._depth = 0
        self._returned: list[Kind | None] = []
        self._ways: dict[type[ast.AST], Callable[..., bool]] = {
            ast.Assign: self._assign,
            ast.AnnAssign: self._annotated,
            ast.AugAssign: self._augmented,
            ast.If: self._branches,
            ast.For: self._loop,
            ast.AsyncFor: self._loop,
            ast.While: self._loop,
            ast.Try: self._try,
            ast.With: self._with,
            ast.AsyncWith: self._with,
            ast.FunctionDef: self._define,
            ast.AsyncFunctionDef: self._define,
            ast.ClassDef: self._define,
            ast.Import: self._import,
            ast.ImportFrom: self._import,
            ast.Expr: self._expression,
            ast.Return: self._return,
            ast.Delete: self._forget_targets,
        }

    def follow(self, module: ast.Module) -> Iterable[ObjectFault]:
        """Return the faults of a module."""
        nodes = list(walk(module))
        self.shared = {name for node in nodes if isinstance(node, (ast.Global, ast.Nonlocal)) for name in node.names}
        self.stored = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        self.block(module.body)
        self.outer = {name: kind for name, kind in self.names.items() if name not in self.shared}
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and id(node) not in self._times:
                self._body(node, {})
        return dict.fromkeys(self.faults)

    def block(self, statements: list[ast.stmt]) -> bool:
        """Follow statements and return whether the code after them is not reached."""
        for statement in statements:
            way = self._ways.get(type(statement))
            if way is not None:
                if way(statement):
                    return True
            elif isinstance(statement, _ENDS):
                self.parts(statement)
                return True
            else:
                self._forget(statement)
                self.parts(statement)
        return False

    def _forget(self, node: ast.AST) -> None:
        """Forget the kinds of all names that a statement binds."""
        for one in walk(node):
            if isinstance(one, ast.Name) and isinstance(one.ctx, (ast.Store, ast.Del)):
                self.names[one.id] = None
            elif isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.names[one.name] = None
            elif isinstance(one, (ast.Import, ast.ImportFrom)):
                self._import(one)

    def _forget_targets(self, node: ast.Delete) -> bool:
        self._forget(node)
        return False

    def _assign(self, node: ast.Assign) -> bool:
        kind = self.kind(node.value)
        for target in node.targets:
            self.bind(target, kind, node.value)
        return False

    def _annotated(self, node: ast.AnnAssign) -> bool:
        if node.value is not None:
            self.bind(node.target, self.kind(node.value), node.value)
        return False

    def _augmented(self, node: ast.AugAssign) -> bool:
        self.kind(node.value)
        self._forget(node.target)
        return False

    def _expression(self, node: ast.Expr) -> bool:
        kind = self.kind(node.value)
        if isinstance(node.value, ast.Attribute):
            self.uncalled(node.value, kind)
        if isinstance(node.value, ast.Call):
            self.drop(node.value)
            name = self.full_name(node.value.func)
            return name in ("sys.exit", "exit", "quit", "os._exit")
        return False

    def _return(self, node: ast.Return) -> bool:
        self._returned.append(self.kind(node.value) if node.value is not None else Kind("None"))
        return True

    def _branches(self, node: ast.If) -> bool:
        self.kind(node.test)
        if _is_main(node.test):
            return self.block(node.body)
        asked = _questioned(node.test)
        before = dict(self.names)
        self.names.update(dict.fromkeys(asked))
        ends = self.block(node.body)
        after, self.names = self.names, dict(before)
        self.names.update(dict.fromkeys(asked))
        other = self.block(node.orelse)
        if ends or other:
            self.names = self.names if ends else after
        else:
            self.names = _both(after, self.names)
        kept = {name: kind for name, kind in before.items() if name in asked and self.names.get(name) is None}
        if not (ends or other):
            self.names.update({name: kind for name, kind in kept.items() if not _binds(node, name)})
        return ends and other

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> bool:
        self.kind(node.test if isinstance(node, ast.While) else node.iter)
        self._forget(node)
        before = dict(self.names)
        self.block(node.body)
        self.names = _both(before, self.names)
        self.block(node.orelse)
        return False

    def _try(self, node: ast.Try) -> bool:
        before = dict(self.names)
        self.guarded += bool(node.handlers)
        ends = self.block(node.body)
        self.guarded -= bool(node.handlers)
        after = self.names
        for handler in node.handlers:
            self.names = dict(before)
            self._forget(ast.Module(node.body, []))
            if handler.name:
                self.names[handler.name] = None
            if not self.block(handler.body):
                after = _both(after, self.names) if not ends else self.names
                ends = False
        self.names = after
        return (not ends and self.block(node.orelse)) or self.block(node.finalbody) or ends

    def _with(self, node: ast.With | ast.AsyncWith) -> bool:
        for item in node.items:
            self.kind(item.context_expr)
            if item.optional_vars is not None:
                self._forget(item.optional_vars)
        return self.block(node.body)

    def _define(self, node: _Function | ast.ClassDef) -> bool:
        plain = isinstance(node, ast.FunctionDef) and not node.decorator_list and not self._inside(node).yields
        self.names[node.name] = Kind("function", node=node) if plain and isinstance(node, ast.FunctionDef) else None
        return False

    def _import(self, node: ast.Import | ast.ImportFrom) -> bool:
        module = f"{node.module}." if isinstance(node, ast.ImportFrom) and not node.level else ""
        known = isinstance(node, ast.Import) or bool(module)
        for alias in node.names:
            local = alias.asname or alias.name.partition(".")[0]
            name = alias.name if alias.asname or module else local
            self.names[local] = Kind("api", source=f"{module}{name}") if known else None
        return False

    def called(self, function: ast.FunctionDef, given: Mapping[str, Kind | None]) -> Kind | None:
        """Return what a function of the script returns for a call."""
        if self._depth >= _DEPTH or self._times.get(id(function), 0) >= _TIMES:
            return None
        return self._body(function, given)

    def _inside(self, function: _Function) -> Inside:
        """Return what is inside of a function; each function is read once."""
        found = self._read.get(id(function))
        if found is None:
            found = self._read[id(function)] = _parts(function)
        return found

    def _inner(self, function: _Function) -> None:
        """Follow the functions inside a function that its body does not call, with the names that the body leaves."""
        names, outer = self.names, self.outer
        self.outer = {**outer, **names}
        for node in self._inside(function).functions:
            if id(node) not in self._times:
                self._body(node, {})
        self.names, self.outer = names, outer

    def _body(self, function: _Function, given: Mapping[str, Kind | None]) -> Kind | None:
        self._times[id(function)] = self._times.get(id(function), 0) + 1
        names, returned, outer, guarded = self.names, self._returned, self.outer, self.guarded
        if self._depth == 0 and not self.outer:
            self.outer = {name: kind for name, kind in names.items() if name not in self.shared}
        self._depth += 1
        inside = self._inside(function)
        parameters = {name: given.get(name) for name in inside.parameters}
        self.names, self._returned, self.guarded = {**dict.fromkeys(inside.bound), **parameters}, [], 0
        ends = self.block(function.body)
        self._inner(function)
        kinds = self._returned if ends or self._returned else [Kind("None")]
        found = kinds[0] if kinds and (ends or (len(kinds) == 1 and not self._returned)) else None
        for one in kinds[1:]:
            found = joined(found, one)
        self._depth -= 1
        self.names, self._returned, self.outer, self.guarded = names, returned, outer, guarded
        return None if isinstance(function, ast.AsyncFunctionDef) or inside.yields else found


def _both(left: Mapping[str, Kind | None], right: Mapping[str, Kind | None]) -> dict[str, Kind | None]:
    return {name: joined(left.get(name), right.get(name)) for name in {**left, **right}}


def _binds(node: ast.AST, name: str) -> bool:
    return any(isinstance(one, ast.Name) and one.id == name and isinstance(one.ctx, ast.Store) for one in walk(node))


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _parts(function: _Function) -> Inside:
    """Return what is inside of a function."""
    nodes = list(walk(function))
    return Inside(
        tuple({one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}),
        tuple(one.arg for one in walk(function.args) if isinstance(one, ast.arg)),
        any(isinstance(one, (ast.Yield, ast.YieldFrom)) for one in nodes),
        tuple(one for one in nodes if one is not function and isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))),
    )


def _questioned(test: ast.expr) -> set[str]:
    """Return the names whose kind a condition asks for."""
    found: set[str] = set()
    for one in walk(test):
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id in _QUESTIONS and one.args:
            found |= {part.id for part in walk(one.args[0]) if isinstance(part, ast.Name)}
        elif isinstance(one, ast.Compare):
            found |= {part.id for part in (one.left, *one.comparators) if isinstance(part, ast.Name)}
        elif isinstance(one, ast.Name):
            found.add(one.id)
    return found
