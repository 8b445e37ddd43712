"""Answers of a path to the conditions that the file leaves open, and what each answer tells."""

from __future__ import annotations

import ast
import functools

from kbitlint.facts.values import UNKNOWN, Span
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.objects import Constant, Entry, Object, Record, Sequence
from kbitlint.source.interpreter.predicates import truth_value

#: Number of values of a list, of which a condition tells that one is meant, that are followed one by one.
_MAX_CHOICES = 4
#: Number of characters that take as long to process as one step.
_CHEAP = 64
_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.NotEq: ast.Eq, ast.IsNot: ast.Is, ast.NotIn: ast.In}


class Conditions(Interpreter):
    """The part of the interpreter that decides conditions."""

    def decide(self, test: ast.expr) -> bool:
        """Return whether a condition holds on this path; a path answers each unknown condition once."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return not self.decide(test.operand)
        if isinstance(test, ast.BoolOp):
            decisive = isinstance(test.op, ast.Or)
            return decisive if any(self.decide(value) is decisive for value in test.values) else not decisive
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and type(test.ops[0]) in _NEGATED:
            # a condition and its negation are one question: a path answers it once
            return not self.decide(_positive(test))
        value = self.value(test)
        known = truth_value(value)
        flag = value.flag if isinstance(value, Constant) else ""
        if known is not None and not flag:
            return known
        if value is UNKNOWN and isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "hasattr":
            return True  # an object of unknown class has what is asked for, and its value is unknown: no default counts
        answer = self.answer(self.key_of(test), first=known is not False)
        if flag and answer is not known:
            self.moved[flag] = UNKNOWN
        if not flag or answer is not known:
            self._establish(test, answer=answer)
        return answer

    def _establish(self, test: ast.expr, *, answer: bool) -> None:
        """Keep what the answer to a condition tells about the values in it."""
        if not isinstance(test, ast.Compare):
            self._switch(test, answer=answer)
        elif answer and len(test.ops) == 1:
            right = self.value(test.comparators[0])
            if isinstance(test.ops[0], ast.Eq) and isinstance(right, Constant):
                self._equate(test.left, right)
            elif isinstance(test.ops[0], ast.In) and isinstance(right, Sequence) and len(right.values) <= _MAX_CHOICES:
                self._choose(test.left, right.values)

    def _choose(self, node: ast.expr, values: list[Object]) -> None:
        """Follow each of the constants that a value can be, one on each path."""
        if not values or not all(isinstance(value, Constant) for value in values):
            return
        key = self.key_of(node)
        for value in values:
            if value is values[-1] or self.answer(f"{key} is {value}"):
                self._equate(node, value)
                return

    def _switch(self, test: ast.expr, *, answer: bool) -> None:
        """Keep the value of an option that can only be True or False."""
        if isinstance(test, ast.Attribute):
            owner = self.value(test.value)
            if isinstance(owner, Record) and test.attr in owner.switches:
                self._equate(test, Constant(answer))
                if test.attr not in owner.items:
                    nowhere = Span(0, 0, self.text.span(test).line)  # no edit can change what the command line sets
                    owner.items[test.attr] = Entry(Constant(answer), nowhere, nowhere)

    def _equate(self, node: ast.expr, value: Object) -> None:
        """Keep that an expression equals a constant on this path."""
        known = self.evaluated(node)
        if isinstance(known, Constant) and known.flag:
            self.moved[known.flag] = value
            self.trail.flags[known.flag] = str(value.value) if isinstance(value, Constant) else ""
        elif isinstance(value, Constant):
            self.equal[self.key_of(node)] = value
            owner = self.evaluated(node.value) if isinstance(node, ast.Attribute) else UNKNOWN
            if isinstance(node, ast.Attribute) and isinstance(owner, Record) and owner.from_command_line:
                self.trail.flags[node.attr] = "" if value.value is True else str(value.value)

    def key_of(self, node: ast.expr) -> str:
        """Return an expression as a key; expressions that are written alike have the same key.

        An attribute of an object that the path knows has a key of that object, under any name of it.
        """
        if isinstance(node, ast.Attribute):
            owner = self.evaluated(node.value)
            if isinstance(owner, Record):
                return f"{owner.callee}@{owner.span.start}.{node.attr}"
            return f"{self.key_of(node.value)}.{node.attr}"
        if isinstance(node, ast.Name):
            return f"id='{node.id}'"
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.left, ast.Attribute):
            text = f"{self.key_of(node.left)} {type(node.ops[0]).__name__} {_written(node.comparators[0])}"
        else:
            text = _written(node)
        self.effort.spend(len(text) // _CHEAP)
        return text

    def forget(self, name: str) -> None:
        """Forget what the path's answers tell about a name that the script binds again."""
        for key in [key for key in self.equal if f"id='{name}'" in key]:
            del self.equal[key]

    def answer(self, key: str, *, first: bool = True) -> bool:
        """Return this path's answer to a question that the file leaves open; ``first`` is the one that is followed first."""
        if key not in self.decisions:
            self.decisions[key] = first
        self.asked.setdefault(key, self.stage)
        return self.decisions[key]


@functools.lru_cache(maxsize=1_024)
def _written(node: ast.expr) -> str:
    """Return an expression as a text; every path asks again for those of the same conditions."""
    return ast.dump(node)


@functools.lru_cache(maxsize=1_024)
def _positive(test: ast.Compare) -> ast.Compare:
    """Return the condition that a comparison negates."""
    positive = ast.Compare(test.left, [_NEGATED[type(test.ops[0])]()], test.comparators)
    return ast.copy_location(positive, test)
