"""Loops that go on in the mode of an evaluation."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import LoopFault, Oversight
from kbitlint.source.nodes import walk
from kbitlint.source.text.placed_calls import FUNCTIONS, LOOPS, calls

if TYPE_CHECKING:
    from collections.abc import Iterator


def sleeping_loops(module: ast.Module, text: str) -> Iterator[LoopFault]:
    """Yield each call of an evaluation in a loop that goes backward, after which nothing wakes the model."""
    if ".eval()" not in text or ".backward(" not in text:
        return
    functions = [node for node in walk(module) if isinstance(node, FUNCTIONS) and not node.decorator_list]
    sleepers = {node.name: node for node in functions if _has(node, "eval") and not _has(node, "train", "backward")}
    for loop in (node for node in walk(module) if isinstance(node, LOOPS)):
        inner = any(isinstance(node, LOOPS) and _has(node, "backward") for node in walk(loop) if node is not loop)
        if inner or not _has(loop, "backward") or _has(loop, "train"):
            continue
        for node in walk(loop):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if name in sleepers and isinstance(node, ast.Call) and _sleeps(sleepers[name], node, loop):
                yield LoopFault(Oversight.LEFT_ASLEEP, node.lineno, name, "")


def _sleeps(function: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call, loop: ast.AST) -> bool:
    """Return whether a function puts a model to sleep that the loop calls, and that the loop goes on to train."""
    given = dict(zip((one.arg for one in function.args.args), call.args, strict=False))
    given |= {one.arg: one.value for one in call.keywords if one.arg}
    called = {ast.unparse(node.func) for node in walk(loop) if isinstance(node, ast.Call)}
    for node in walk(function):
        if isinstance(node, ast.Call) and calls(node, "eval") and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            model = ast.unparse(given[owner]) if owner in given else owner
            if model in called and not any(isinstance(one, (ast.Break, ast.Return)) for one in _behind(loop, call)):
                return True
    return False


def _behind(loop: ast.AST, call: ast.Call) -> list[ast.stmt]:
    """Return the statements behind a call in its own block."""
    for node in walk(loop):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(body, list) and any(call in [*walk(one)] for one in body if not isinstance(one, (ast.If, *LOOPS))):
                return [one for one in body if one.lineno > call.lineno]
    return []


def _has(node: ast.AST, *methods: str) -> bool:
    return any(
        isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in methods for one in walk(node)
    )
