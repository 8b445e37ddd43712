"""Loops that go on in the mode of an evaluation."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import LoopFault, Oversight
from kbitlint.source.nodes import last_name, walk
from kbitlint.source.text.own_loops import turns_off
from kbitlint.source.text.placed_calls import FUNCTIONS, LOOPS, assigned, calls, placed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    _Loop = ast.For | ast.AsyncFor | ast.While
    _Function = ast.FunctionDef | ast.AsyncFunctionDef


def sleeping_loops(module: ast.Module, text: str) -> Iterator[LoopFault]:
    """Yield each call of an evaluation in a loop that goes backward, after which nothing wakes the model."""
    if ".eval()" not in text or ".backward(" not in text:
        return
    functions = [node for node in walk(module) if isinstance(node, FUNCTIONS)]
    wakers = {"train", *(node.name for node in functions if _has(node, "train"))}
    sleepers = {node.name: node for node in functions if _has(node, "eval") and not _has(node, "backward", "exit", *wakers)}
    sleepers = {name: node for name, node in sleepers.items() if all(turns_off(one) for one in node.decorator_list)}
    loops = [node for node in walk(module) if isinstance(node, LOOPS)]
    single = {name for name, found in assigned(module).items() if all(_is_one(one) for one in found)}
    for inner in loops if sleepers else ():
        loop = _trains(inner, loops, wakers)
        if loop is None or (loop is inner and _runs_once(loop, single)):
            continue
        for at in placed(inner):
            name = at.call.func.id if isinstance(at.call.func, ast.Name) else ""
            if name in sleepers and _sleeps(sleepers[name], at.call, loop):
                yield LoopFault(Oversight.LEFT_ASLEEP, at.call.lineno, name, "")


def _trains(inner: _Loop, loops: Sequence[_Loop], wakers: set[str]) -> _Loop | None:
    """Return the first loop from the inside that goes backward around a call; None if it wakes the model, or if none does."""
    around = [one for one in loops if one is inner or any(node is inner for node in walk(one))]
    for loop in sorted(around, key=lambda one: one.lineno, reverse=True):
        if _has(loop, *wakers):
            return None
        if _has(loop, "backward"):
            return loop
    return None


def _runs_once(loop: _Loop, single: set[str]) -> bool:
    """Return whether a loop certainly has one round only."""
    rounds = loop.iter if isinstance(loop, (ast.For, ast.AsyncFor)) else None
    if not isinstance(rounds, ast.Call) or not calls(rounds, "range") or len(rounds.args) != 1:
        return False
    return _is_one(rounds.args[0]) or ast.unparse(rounds.args[0]) in single


def _is_one(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value == 1


def _sleeps(function: _Function, call: ast.Call, loop: _Loop) -> bool:
    """Return whether a function puts a model to sleep that the loop goes on to train."""
    given = dict(zip((one.arg for one in function.args.args), call.args, strict=False))
    given |= {one.arg: one.value for one in call.keywords if one.arg}
    if any(isinstance(one, (ast.Break, ast.Return)) for one in _behind(loop, call)):
        return False
    trained = _trained(loop)
    owners = [
        ast.unparse(one.func.value)
        for one in walk(function)
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "eval" and not one.args
    ]
    return any((ast.unparse(given[one]) if one in given else one) in trained for one in owners)


def _trained(loop: _Loop) -> set[str]:
    """Return the objects that a loop calls, and those of which a function makes a loss that goes backward."""
    found = [node for node in walk(loop) if isinstance(node, ast.Call)]
    passes = [node for node in found if calls(node, "backward")]
    losses = [part for one in passes for part in (one.args or [getattr(one.func, "value", one.func)])]
    names = {ast.unparse(one) for one in losses}
    made = [node.value for node in walk(loop) if isinstance(node, ast.Assign) and names & set(map(ast.unparse, node.targets))]
    makers = [node for part in (*losses, *made) for node in walk(part) if isinstance(node, ast.Call)]
    return {ast.unparse(node.func) for node in found} | {ast.unparse(one) for node in makers for one in node.args}


def _behind(loop: ast.AST, call: ast.Call) -> list[ast.stmt]:
    """Return the statements behind a call in its own block."""
    for node in walk(loop):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(body, list) and any(call in [*walk(one)] for one in body if not isinstance(one, (ast.If, *LOOPS))):
                return [one for one in body if one.lineno > call.lineno]
    return []


def _has(node: ast.AST, *names: str) -> bool:
    """Return whether a part of a file calls a function with one of these last names."""
    return any(isinstance(one, ast.Call) and last_name(one.func) in names for one in walk(node))
