"""Loops, followed for one round, and the effect of the first round on a second one."""

from __future__ import annotations

import ast
import functools
import operator

from kbitlint.facts.values import UNKNOWN, Style
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.control_flow import LoopLeft
from kbitlint.source.interpreter.names import known_text
from kbitlint.source.interpreter.objects import (
    Constant,
    Entry,
    Object,
    Parameters,
    Record,
    Scope,
    Sequence,
    Submodule,
    TrackedModel,
)
from kbitlint.source.interpreter.rounds import next_round
from kbitlint.source.nodes import walk

#: Number of nodes or names that take as long to process as one step.
_CHEAP = 16
#: Number of rounds up to which a loop that sets items is followed to its end: layers of the deepest models.
_MAX_ROUNDS = 160
_RANGE_ARGUMENTS = 3
#: Number of models up to which each round of a loop over them is followed.
_ROUNDS = 8
_ORDERS = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class Loops(Interpreter):
    """The part of the interpreter that follows loops."""

    def filters_parameters(self, test: ast.expr) -> bool:
        """Return whether a condition depends on the parameters that a loop iterates over."""
        size, names = _names_in(test)
        self.effort.spend(size // _CHEAP)
        return any(isinstance(self.scope.find(name), Parameters) for name in names) or bool(names & self._parameter_names)

    def filtered(self, node: ast.If) -> None:
        """Follow both branches of a condition on the parameters of a loop; each branch applies to a part of them."""
        self.effort.spend(len(self.scope.names) // _CHEAP)
        values = [value for value in self.scope.names.values() if isinstance(value, Parameters)]
        before = [value.filtered for value in values]
        for value in values:
            value.filtered = True
        outer = self.filters
        try:
            self.filters = (*outer, (node.test, True))
            self.block(node.body)
            self.filters = (*outer, (node.test, False))
            self.block(node.orelse)
        finally:
            self.filters = outer
        for value, filtered in zip(values, before, strict=True):
            value.filtered = filtered

    def _gone_through(self, node: ast.expr) -> Object:
        """Return the value that a loop iterates over; iterating over parameters passes them to no optimizer."""
        before = self.optimizer_claims()
        value = self.value(node)
        if isinstance(value, (Parameters, Submodule)):
            value.net.handed = before.get(value.net.number, frozenset())
        if isinstance(value, Parameters):
            value.used = True
        return value

    def _do_for(self, node: ast.For | ast.AsyncFor) -> None:
        if isinstance(node, ast.For) and _fills_items(node.body) and self._filled(node):
            return
        value, whole = self._gone_through(node.iter), self.whole_loop
        if _lists_models(value) and isinstance(value, Sequence):
            self._for_each(node, value)
            return
        names = {inner.id for inner in walk(node.target) if isinstance(inner, ast.Name)}
        if isinstance(value, (Parameters, Submodule)):
            one = Parameters(value.net, value.filtered) if isinstance(value, Parameters) else value
            target = node.target.elts[-1] if isinstance(node.target, ast.Tuple) and node.target.elts else node.target
            self.bind(node.target, UNKNOWN)
            self.bind(target, one)
            outer, self._parameter_names = self._parameter_names, self._parameter_names | names
            self.whole_loop = isinstance(value, Parameters) and not value.filtered
        else:
            first = value.values[0] if isinstance(value, Sequence) and len(value.values) == 1 else UNKNOWN
            self.bind(node.target, first)
            outer = self._parameter_names
        self._loop(node)
        self._parameter_names, self.whole_loop = outer, whole

    _do_asyncfor = _do_for

    def _for_each(self, node: ast.For | ast.AsyncFor, value: Sequence) -> None:
        """Follow a loop over models round by round: ``for model in (vae, text_encoder, unet): ...``."""
        self.loops.append(self.text.span(node))
        try:
            for one in value.values:
                self.bind(node.target, one)
                self.block(node.body)
        except LoopLeft:
            pass
        finally:
            self.loops.pop()
        self.block(node.orelse)

    def _filled(self, node: ast.For) -> bool:
        """Follow every round of a loop over numbers that only sets items; return False if the numbers are not known."""
        rounds = self._numbers(node.iter)
        if rounds is None or not isinstance(node.target, ast.Name):
            return False
        for number in rounds:
            self.effort.spend()
            self.bind(node.target, Constant(number))
            self._set_items(node.body)
        return True

    def _set_items(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.If):
                known = self._holds(statement.test)
                self._set_items(statement.body if known else statement.orelse) if known is not None else self.block([statement])
            elif isinstance(statement, ast.Assign):
                self.bind(statement.targets[0], self._chosen(statement.value), statement.value)

    def _chosen(self, node: ast.expr) -> Object:
        """Return the value of an expression, whose condition may compare numbers."""
        known = self._holds(node.test) if isinstance(node, ast.IfExp) else None
        if isinstance(node, ast.IfExp) and known is not None:
            return self._chosen(node.body if known else node.orelse)
        return self.value(node)

    def _without_asking(self, node: ast.expr) -> Object:
        """Return the value of an expression; UNKNOWN if it is conditional, and the file does not decide its condition."""
        open_question = isinstance(node, ast.IfExp) and self._holds(node.test) is None
        return UNKNOWN if open_question else self._chosen(node)

    def _holds(self, test: ast.expr) -> bool | None:
        """Return whether a comparison of two known numbers holds; None for every other condition."""
        compare = _ORDERS.get(type(test.ops[0])) if isinstance(test, ast.Compare) and len(test.ops) == 1 else None
        if compare is None or not isinstance(test, ast.Compare):
            return None
        left, right = self.value(test.left), self.value(test.comparators[0])
        values = [side.value for side in (left, right) if isinstance(side, Constant) and not side.flag]
        numbers = [value for value in values if isinstance(value, int)]
        return bool(compare(*numbers)) if len(numbers) == len((left, right)) else None

    def _numbers(self, node: ast.expr) -> range | None:
        """Return the range that a loop goes through; None if it is not known, or long."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and node.args):
            return None
        ends = [self.value(item) for item in node.args]
        known = [end.value for end in ends if isinstance(end, Constant) and isinstance(end.value, int) and not end.flag]
        if len(known) != len(ends) or len(known) > _RANGE_ARGUMENTS or 0 in known[2:]:
            return None
        found = range(*known)
        return found if 0 < len(found) <= _MAX_ROUNDS else None

    def _dictcomp(self, node: ast.DictComp) -> Object:
        """Return the dict that a comprehension over numbers, or over a dict, makes; every other one is UNKNOWN."""
        first = node.generators[0]
        over = self._dict_of(first.iter)
        if over is not None and len(node.generators) == 1:
            return self.filtered_dict(node, over) if first.ifs else self._mapped(node, over)
        rounds = self._numbers(first.iter)
        if rounds is None or len(node.generators) > 1 or first.ifs or not isinstance(first.target, ast.Name):
            return UNKNOWN
        span = self.text.span(node)
        made = Record(span=span, style=Style.DICT, tail=span.end)
        self.scope = Scope({}, self.scope)
        try:
            for number in rounds:
                self.effort.spend()
                self.scope.names[first.target.id] = Constant(number)
                key, inside = known_text(self.value(node.key)), self.text.span(node.value)
                if key is None:
                    return UNKNOWN
                made.items[key] = Entry(self._chosen(node.value), inside, inside)
        finally:
            self.scope = self.scope.outer or self.module
        return made

    def _dict_of(self, node: ast.expr) -> Record | None:
        """Return the dict of ``batch.items()`` if all of its keys are known."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "items"):
            return None
        owner = self.value(node.func.value) if not node.args else UNKNOWN
        known = isinstance(owner, Record) and owner.callee == "dict" and owner.complete and owner.items
        return owner if known and isinstance(owner, Record) else None

    def _mapped(self, node: ast.DictComp, over: Record) -> Object:
        """Return the dict that a comprehension makes of another one: ``{name: v.to(device) for name, v in batch.items()}``."""
        target = node.generators[0].target
        if not (isinstance(target, ast.Tuple) and all(isinstance(name, ast.Name) for name in target.elts)):
            return UNKNOWN
        names = [name.id for name in target.elts if isinstance(name, ast.Name)]
        span = self.text.span(node)
        made = Record(span=span, style=Style.DICT, tail=span.end)
        for name, given in over.items.items():
            self.effort.spend()
            outer, self.scope = self.scope, Scope(dict(zip(names, (Constant(name), given.value), strict=False)), self.scope)
            try:
                key, value = known_text(self.value(node.key)), self._without_asking(node.value)
            finally:
                self.scope = outer
            if key is None:
                return UNKNOWN
            made.items[key] = Entry(value, given.span, given.whole)
        return made

    def _do_while(self, node: ast.While) -> None:
        self.value(node.test)
        self._loop(node)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        self.loops.append(self.text.span(node))
        before = len(self.trail.steps), len(self.trail.trainings)
        try:
            self.block(node.body)
            if not self._runs_once(node):
                next_round(self.trail, *before)
        except LoopLeft:
            pass
        finally:
            self.loops.pop()
        self.block(node.orelse)

    def _runs_once(self, node: ast.For | ast.AsyncFor | ast.While) -> bool:
        """Return whether a loop ends after its first round for certain: ``for epoch in range(1)``."""
        over = node.iter if not isinstance(node, ast.While) else None
        if isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "range" and over.args:
            last = self.value(over.args[-1])
            return len(over.args) == 1 and isinstance(last, Constant) and last.value in (0, 1)
        return False

    def _do_break(self, _: ast.Break) -> None:
        raise LoopLeft

    _do_continue = _do_break


def _lists_models(value: Object) -> bool:
    """Return whether a value is a short sequence with a model in it."""
    listed = value.values if isinstance(value, Sequence) else ()
    return 1 < len(listed) <= _ROUNDS and any(isinstance(one, TrackedModel) for one in listed)


@functools.lru_cache(maxsize=1_024)
def _names_in(node: ast.expr) -> tuple[int, frozenset[str]]:
    """Return the number of nodes of an expression, and the names in it; every path asks again."""
    inside = list(walk(node))
    return len(inside), frozenset(inner.id for inner in inside if isinstance(inner, ast.Name))


def _fills_items(body: list[ast.stmt]) -> bool:
    """Return whether statements only set items, and call nothing: ``device_map[f"layers.{i}"] = 0``."""
    return all(
        _fills_items(item.body) and _fills_items(item.orelse)
        if isinstance(item, ast.If)
        else isinstance(item, ast.Assign)
        and len(item.targets) == 1
        and isinstance(item.targets[0], ast.Subscript)
        and not any(isinstance(inner, ast.Call) for inner in walk(item))
        for item in body
    )
