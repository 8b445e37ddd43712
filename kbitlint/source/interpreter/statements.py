"""Statements of a file, followed along one path from the first line to the last."""

from __future__ import annotations

import ast
import dataclasses
import functools
from typing import TYPE_CHECKING

from kbitlint.facts.model_state import same_but_for_mode
from kbitlint.facts.values import UNKNOWN, Call
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.control_flow import LoopLeft, PathEnd, Returned
from kbitlint.source.interpreter.names import lets_gradients_through, lets_no_gradient_through, makes_inference_tensors
from kbitlint.source.interpreter.objects import (
    Function,
    Record,
    TrackedModel,
    Trainer,
)
from kbitlint.source.interpreter.predicates import truth_value
from kbitlint.source.interpreter.stages import Kind
from kbitlint.source.interpreter.uncalled_functions import UncalledFunction, blur_order, called_in_order
from kbitlint.source.nodes import walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kbitlint.source.interpreter.snapshots import Recording
    from kbitlint.source.interpreter.stages import Stage

#: Number of nodes or names that take as long to process as one step.
_CHEAP = 16
_FIRST_RANK = ("is_main_process", "is_local_main_process", "is_world_process_zero", "is_local_process_zero")
_Target = ast.Name | ast.Attribute | ast.Subscript
#: The name of the method that follows each type of statement.
_METHODS = {kind: f"_do_{kind.__name__.lower()}" for kind in ast.stmt.__subclasses__()}


class Statements(Interpreter):
    """The part of the interpreter that follows the statements of modules, functions and classes."""

    def follow(self, stages: Sequence[Stage], recording: Recording) -> None:
        """Follow the whole file, and then each function and class that the path has not used."""
        try:
            for number in range(self.stage, len(stages)):
                self.stage = number
                recording.reached(self)
                self._stage(stages[number])
        except (PathEnd, Returned, LoopLeft):
            pass
        self._finish(self.trail.trainers)
        blur_order(self.trail, self.units)

    def _finish(self, trainers: Iterable[Trainer]) -> None:
        for trainer in trainers:
            if not trainer.judged:
                self.trail.finish(trainer)

    def _stage(self, stage: Stage) -> None:
        if stage.kind is Kind.STATEMENT:
            self.block([stage.statement])
            return
        try:
            self._alone(stage)
        except PathEnd:
            self.instance = None

    def _alone(self, stage: Stage) -> None:
        """Follow a function, or one part of a class, that the path has not used."""
        statement = stage.statement
        if stage.kind is Kind.METHOD:
            if self.instance is not None and self.instance.of is not None and id(statement) not in self.used:
                assert isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))  # noqa: S101  # as stages_of makes it
                member = self.member(self.instance.of, statement.name, self.instance)
                if isinstance(member, Function) and id(member.node) not in self.used:
                    self._at_any_time(member)
            return
        self.instance = None
        if id(statement) in self.used or not self.relevance.matters([statement]):
            return
        if isinstance(statement, ast.ClassDef):
            made = self.make(self._class(statement), Record(complete=False))
            self.instance = made if isinstance(made, Record) else None
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._at_any_time(Function(statement, self.module))

    def _at_any_time(self, function: Function) -> None:
        """Follow a function that only other files call.

        The time of the call is unknown. If an optimizer has received a model's parameters, it may have received them after
        adapters were attached.
        """
        nets, trail = list(self.trail.nets), self.trail
        self.effort.spend(len(nets) // _CHEAP)
        for net in nets:
            net.handed |= {True} if net.handed else frozenset()
        states = [net.state for net in nets]
        steps, trainings, trainers = len(trail.steps), len(trail.trainings), len(trail.trainers)
        self.run(function, Record())
        if not called_in_order(function):
            self._finish(trail.trainers[trainers:])
            changed = {net.number for net, state in zip(nets, states, strict=True) if not same_but_for_mode(net.state, state)}
            ranges = range(steps, len(trail.steps)), range(trainings, len(trail.trainings))
            self.units.append(UncalledFunction(*ranges, frozenset(changed)))

    def block(self, statements: Iterable[ast.stmt]) -> None:
        """Follow statements in order."""
        for statement in statements:
            self.effort.spend()
            method = getattr(self, _METHODS.get(type(statement), ""), None)
            if method is not None:
                method(statement)

    def _do_expr(self, node: ast.Expr) -> None:
        value = self.value(node.value)
        adapters = value.state.adapters if isinstance(value, TrackedModel) else None
        if not isinstance(value, TrackedModel) or adapters is None or adapters.by.callee != "peft.get_peft_model":
            return
        if adapters.by.span == self.text.span(node.value):
            value.state = dataclasses.replace(value.state, adapters=dataclasses.replace(adapters, kept=False))
        elif isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):  # of the file: see rename_base
            call = Call(node.value.func.id, self.text.span(node.value))
            value.state = dataclasses.replace(value.state, adapters=dataclasses.replace(adapters, dropped=call))

    def _do_if(self, node: ast.If) -> None:
        if _is_main(node.test):
            self.block(node.body if self.module.home is None else node.orelse)
            return
        if self.filters_parameters(node.test):
            self.filtered(node)
            return
        if _asks_for_first_rank(node.test) and not self.relevance.matters(node.orelse):
            self.block(node.body)
            return
        if not (self.relevance.matters(node.body) or self.relevance.matters(node.orelse)):
            known = truth_value(self.value(node.test))
            if known is True or (known is None and not node.orelse and not _leaves(node.body)):
                self.block(node.body if known else ())
            elif known is False:
                self.block(node.orelse)
            if known is None:
                self._forget([*node.body, *node.orelse])
            return
        self.block(node.body if self.decide(node.test) else node.orelse)

    def _forget(self, statements: list[ast.stmt]) -> None:
        """Mark the effects of a branch that was not followed as unknown.

        What the branch assigns becomes UNKNOWN. The models that it passes to other functions become uncertain.
        """
        for statement in statements:
            size, effects, returns = _effects(statement)
            if returns:
                self.scope.names["return"] = UNKNOWN  # no name of a script: see Functions
            paid = 0
            for number, inner in effects:
                due = number // _CHEAP + 1
                self.effort.spend(due - paid)
                paid = due
                if isinstance(inner, ast.Call):
                    self.give_away(inner)
                else:
                    self.bind(inner, UNKNOWN)
            self.effort.spend((size - 1) // _CHEAP + 1 - paid)

    def _do_with(self, node: ast.With | ast.AsyncWith) -> None:
        off = self.trail.gradients_off
        for item in node.items:
            value = self.value(item.context_expr)
            enter = self.member(value.of, "__enter__", value) if isinstance(value, Record) and value.of is not None else UNKNOWN
            if isinstance(enter, Function):
                value = self.run(enter, Record("__enter__"))
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value)
        tracked = not any(lets_no_gradient_through(item.context_expr) for item in node.items)
        inferred = any(makes_inference_tensors(item.context_expr) for item in node.items)
        enabled = any(lets_gradients_through(item.context_expr) for item in node.items)
        outer, self.trail.gradients_off = self.untracked, None if enabled else off
        self.untracked = 0 if enabled else outer + (not tracked)
        self.trail.inferred += inferred
        try:
            self.block(node.body)
        finally:
            self.untracked, self.trail.gradients_off = outer, off
            self.trail.inferred -= inferred

    _do_asyncwith = _do_with

    def _do_try(self, node: ast.Try) -> None:
        handler = next((handler for handler in node.handlers if self.relevance.calls(handler.body)), None)
        if handler is not None and self.relevance.calls(node.body) and not self.answer(f"try {node.lineno}"):
            # the first statement in the block raises
            self.block(handler.body)
        else:
            self.block(node.body)
            self.block(node.orelse)
        self.block(node.finalbody)

    _do_trystar = _do_try

    def _do_match(self, node: ast.Match) -> None:
        if not any(self.relevance.matters(case.body) for case in node.cases):
            self._forget([statement for case in node.cases for statement in case.body])
            return
        for number, case in enumerate(node.cases):
            fits = self._matches(node.subject, case.pattern, f"match {node.lineno} {number}")
            if fits and (case.guard is None or self.decide(case.guard)):
                self.block(case.body)
                return

    def _matches(self, subject: ast.expr, pattern: ast.pattern, key: str) -> bool:
        if isinstance(pattern, ast.MatchOr):
            return any(self._matches(subject, one, f"{key} {number}") for number, one in enumerate(pattern.patterns))
        if isinstance(pattern, ast.MatchValue):
            return self.decide(ast.copy_location(ast.Compare(subject, [ast.Eq()], [pattern.value]), subject))
        if isinstance(pattern, ast.MatchSingleton):
            constant = ast.copy_location(ast.Constant(pattern.value), subject)
            return self.decide(ast.copy_location(ast.Compare(subject, [ast.Is()], [constant]), subject))
        if isinstance(pattern, ast.MatchAs) and pattern.pattern is None:
            if pattern.name is not None:
                self.scope.names[pattern.name] = self.value(subject)
            return True
        return self.answer(key)

    def _do_return(self, node: ast.Return) -> None:
        raise Returned(self.value(node.value), node.value)

    def _do_raise(self, _: ast.Raise) -> None:
        raise PathEnd

    def _do_delete(self, node: ast.Delete) -> None:
        self.effort.spend(len(node.targets) // _CHEAP)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.scope.names.pop(target.id, None)

    def _do_global(self, node: ast.Global) -> None:
        self.effort.spend(len(node.names) // _CHEAP)
        for name in node.names:
            self.scope.names.setdefault(name, self.module.names.get(name, UNKNOWN))
            self.scope.shared |= {name}

    def _do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.scope.names[node.name] = Function(node, self.scope)

    _do_asyncfunctiondef = _do_functiondef

    def _do_classdef(self, node: ast.ClassDef) -> None:
        self.scope.names[node.name] = self._class(node)


@functools.lru_cache(maxsize=1_024)
def _effects(statement: ast.stmt) -> tuple[int, tuple[tuple[int, ast.Call | _Target], ...], bool]:
    """Return the size of a statement, its calls and the targets that it binds, and whether it may leave its function.

    The size is the number of its nodes, and each call and target has its number.
    """
    size, found, returns = 0, [], False
    for inner in walk(statement):
        returns = returns or isinstance(inner, ast.Return)
        if isinstance(inner, ast.Call) or (isinstance(inner, _Target) and isinstance(inner.ctx, ast.Store)):
            found.append((size, inner))
        size += 1
    return size, tuple(found), returns


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _asks_for_first_rank(test: ast.expr) -> bool:
    """Return whether a condition lets one process of several through, which every run has."""
    asked = test.func if isinstance(test, ast.Call) else test
    return isinstance(asked, ast.Attribute) and asked.attr in _FIRST_RANK


def _leaves(statements: list[ast.stmt]) -> bool:
    return any(isinstance(statement, (ast.Raise, ast.Return, ast.Break, ast.Continue)) for statement in statements)
