"""Functions that make rows, followed from the first statement to each ``return``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import last
from kbitlint.source.text.row_forms import NONE, UNKNOWN, Form, added, joined, without
from kbitlint.source.text.row_values import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kbitlint.source.text.bindings import Bindings, Def

#: calls inside of calls that are followed
_DEPTH = 4


class RowFunction(Values):
    """One call of a function with the forms of what it is given.

    Args:
        names: The bindings of the file.
        function: The function.
        batched: Whether it gets a batch of rows.
        depth: How many calls are around it.
    """

    def __init__(self, names: Bindings, function: Def, *, batched: bool, depth: int = 0) -> None:
        super().__init__(names, batched=batched)
        self._def = function
        self._depth = depth
        self.results: list[Form] = []
        self.stores: list[int] = []
        """The lines on which it puts an item into its first parameter."""
        self._statements: dict[type[ast.AST], Callable[..., bool]] = {
            ast.Assign: self._assign, ast.AugAssign: self._augment, ast.AnnAssign: self._annotated, ast.Expr: self._expression,
            ast.Return: self._return, ast.If: self._if, ast.Delete: self._delete,
        }  # fmt: skip

    def result(self, given: Sequence[Form]) -> Form:
        """Return the form of what the function returns."""
        parameters = [one.arg for one in (*self._def.args.posonlyargs, *self._def.args.args) if one.arg != "self"]
        self.env = {one.arg: UNKNOWN for one in walk(self._def.args) if isinstance(one, ast.arg)}
        self.env |= dict(zip(parameters, given, strict=False))
        self.first = parameters[0] if parameters else ""
        if isinstance(self._def, ast.Lambda):
            return self.value(self._def.body)
        if any(isinstance(one, (ast.Yield, ast.YieldFrom, ast.Global)) for one in walk(self._def)):
            return UNKNOWN
        if not self._block(self._def.body):
            self.results.append(NONE)
        return joined(self.results)

    def called(self, function: Def, given: Sequence[Form]) -> Form:
        """Return the form of what a function of the script returns, with what it does to the rows that it is given."""
        if self._depth >= _DEPTH:
            return UNKNOWN
        inner = RowFunction(self.names, function, batched=self.batched, depth=self._depth + 1)
        found = inner.result(given)
        self.absent += inner.absent
        self.by_characters += inner.by_characters
        self.from_start += inner.from_start
        self.read |= inner.read
        self.texts |= inner.texts
        return found

    def _block(self, statements: list[ast.stmt]) -> bool:
        """Follow statements; return whether all paths end in them."""
        for one in statements:
            way = self._statements.get(type(one))
            if way is not None:
                if way(one):
                    return True
            elif isinstance(one, ast.Raise):
                return True
            else:
                self._unsure(one)
        return False

    def _unsure(self, node: ast.stmt) -> None:
        """Follow a loop or another compound statement: what it binds may be something else after it."""
        if isinstance(node, (ast.For, ast.While, ast.With, ast.Try)):
            before = dict(self.env)
            bound = {one.id for one in walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
            self.env |= dict.fromkeys(bound, UNKNOWN)
            kept = self._noted()
            self._block(node.body)
            self._forget(kept if isinstance(node, ast.Try) else self._noted())
            after = {name: joined((self.env.get(name, UNKNOWN), value)) for name, value in before.items()}
            self.env = after | dict.fromkeys(bound, UNKNOWN)
        elif not isinstance(node, (ast.Pass, ast.Import, ast.ImportFrom, ast.Assert)):
            self.env = dict.fromkeys(self.env, UNKNOWN)

    def _noted(self) -> tuple[int, int, int]:
        """Return how many faults are noted."""
        return len(self.absent), len(self.by_characters), len(self.from_start)

    def _forget(self, kept: tuple[int, int, int]) -> None:
        """Forget the faults that came after a time."""
        del self.absent[kept[0] :], self.by_characters[kept[1] :], self.from_start[kept[2] :]

    def _assign(self, node: ast.Assign) -> bool:
        value = self.value(node.value)
        for target in node.targets:
            self._store(target, value, node.value)
        return False

    def _annotated(self, node: ast.AnnAssign) -> bool:
        if node.value is not None:
            self._store(node.target, self.value(node.value), node.value)
        return False

    def _store(self, target: ast.expr, value: Form, node: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.env[target.id] = value
        elif isinstance(target, ast.Tuple) and isinstance(node, ast.Tuple) and len(target.elts) == len(node.elts):
            for one, part in zip(target.elts, node.elts, strict=True):
                self._store(one, self.value(part), part)
        elif isinstance(target, ast.Subscript):
            self._put(target, value)
        else:
            self.env |= dict.fromkeys((name.id for name in walk(target) if isinstance(name, ast.Name)), UNKNOWN)

    def _put(self, target: ast.Subscript, value: Form) -> None:
        """Follow ``owner[key] = value`` and ``ids[start:end] = value``."""
        if isinstance(target.slice, ast.Slice):
            self.bounded(self.value(target.value), target.slice)
        if not isinstance(target.value, ast.Name):
            return
        owner = self.env.get(target.value.id, UNKNOWN)
        if owner.kind != "rows":
            return
        if target.value.id == self.first:
            self.stores.append(target.lineno)
        key = target.slice.value if isinstance(target.slice, ast.Constant) else None
        named = isinstance(key, str)
        more = {key: value} if isinstance(key, str) else {}
        self.env[target.value.id] = Form(
            "rows", columns={**owner.columns, **more}, closed=owner.closed and named, encoded=owner.encoded, single=owner.single
        )

    def _augment(self, node: ast.AugAssign) -> bool:
        value = self.value(node.value)
        if isinstance(node.target, ast.Name):
            self.env[node.target.id] = (
                added(self.env.get(node.target.id, UNKNOWN), value) if isinstance(node.op, ast.Add) else UNKNOWN
            )
        elif isinstance(node.target, ast.Subscript):
            whole = added(self.value(node.target), value)
            self._put(node.target, whole)
        return False

    def _expression(self, node: ast.Expr) -> bool:
        call = node.value
        self.value(call)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            name, owner = call.func.value.id, self.env.get(call.func.value.id, UNKNOWN)
            if owner.kind == "rows" and last(call) == "update":
                more = self.value(call.args[0]) if call.args else UNKNOWN
                closed = owner.closed and more.kind == "rows" and more.closed
                columns = {**owner.columns, **more.columns}
                self.env[name] = Form("rows", columns=columns, closed=closed, encoded=owner.encoded, single=owner.single)
            elif owner.kind == "rows" and last(call) not in ("pop", "get", "keys", "items"):
                self.env[name] = UNKNOWN
            elif owner.kind == "rows" and last(call) == "pop":
                self.env[name] = without(owner, call.args[0] if call.args else None)
            elif owner.kind == "ids" and last(call) not in ("append", "extend", "insert"):
                self.env[name] = UNKNOWN
        return False

    def _delete(self, node: ast.Delete) -> bool:
        for target in node.targets:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                owner = self.env.get(target.value.id, UNKNOWN)
                self.env[target.value.id] = without(owner, target.slice) if owner.kind == "rows" else UNKNOWN
        return False

    def _return(self, node: ast.Return) -> bool:
        self.results.append(self.value(node.value) if node.value is not None else NONE)
        return True

    def _if(self, node: ast.If) -> bool:
        self.value(node.test)
        before, kept = dict(self.env), self._noted()
        ends = self._block(node.body)
        after, self.env = self.env, before
        other = self._block(node.orelse)
        self._forget(kept)  # what one path does is not certain
        if ends or other:
            self.env = self.env if ends else after
        else:
            self.env = {name: joined((after.get(name, UNKNOWN), value)) for name, value in self.env.items()}
        return ends and other
