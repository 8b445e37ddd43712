"""Training loops that a file writes itself, read from the text: backward passes, steps, cleared gradients."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import Act, LoopAct, Origin, OwnLoop
from kbitlint.source.nodes import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
#: method of a tensor whose result has no graph -> what it is
DETACHING = {"item": Origin.NUMBER, "detach": Origin.DETACHED, "tolist": Origin.NUMBER}
_WITHOUT_GRAD = ("no_grad", "inference_mode")
#: arguments of a model's call that are no labels
_INPUTS = frozenset(("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds", "use_cache"))


def own_loops(module: ast.Module) -> Iterator[OwnLoop]:
    """Yield each innermost loop that computes gradients or changes parameters."""
    for node in walk(module):
        if isinstance(node, _LOOPS) and (found := _Round(node)).acts:
            yield OwnLoop(node.lineno, tuple(found.acts), found.certain)


class _Round:
    """One round of a loop.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: ast.For | ast.AsyncFor | ast.While) -> None:
        self.acts: list[LoopAct] = []
        self.certain = True
        self._losses: dict[str, tuple[Origin | None, str]] = {}
        self._block(loop.body, grad=True)

    def _block(self, body: list[ast.stmt], *, grad: bool) -> None:
        for statement in body:
            if isinstance(statement, (ast.With, ast.AsyncWith)):
                off = any(turns_off(item.context_expr) for item in statement.items)
                self._block(statement.body, grad=grad and not off)
            elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                self._assign(statement, grad=grad)
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                self._call(statement.value)
            elif any(_is_act(inner) for inner in walk(statement)):
                self.certain = False
                if isinstance(statement, ast.If):
                    self._block([*statement.body, *statement.orelse], grad=grad)

    def _assign(self, statement: ast.Assign, *, grad: bool) -> None:
        target, value = statement.targets[0], statement.value
        if isinstance(target, ast.Name):
            origin, model = _origin(value)
            if not grad and any(isinstance(inner, ast.Call) for inner in walk(value)):
                origin = Origin.WITHOUT_GRAD
            self._losses[target.id] = (origin, model)

    def _call(self, call: ast.Call) -> None:
        if not isinstance(call.func, ast.Attribute):
            return
        owner = call.func.value
        if call.func.attr == "backward":
            loss = call.args[0] if call.args and not isinstance(owner, (ast.Call, ast.BinOp)) else owner
            name = loss.id if isinstance(loss, ast.Name) else ""
            origin, model = self._losses.get(name, (None, ""))
            self.acts.append(LoopAct(Act.BACKWARD, name, call.lineno, origin, model))
        elif isinstance(owner, ast.Name) and call.func.attr in ("step", "zero_grad"):
            act = Act.STEP if call.func.attr == "step" else Act.CLEAR
            if act is Act.CLEAR or "optim" in owner.id or owner.id == "opt":
                self.acts.append(LoopAct(act, owner.id, call.lineno))


def turns_off(context: ast.expr) -> bool:
    """Return whether a context of a ``with`` switches gradients off."""
    function = context.func if isinstance(context, ast.Call) else context
    return isinstance(function, ast.Attribute) and function.attr in _WITHOUT_GRAD


def _is_act(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("backward", "step", "zero_grad")
    )


def _origin(value: ast.expr) -> tuple[Origin | None, str]:
    """Return how a value is made, and the name of a model that is called without labels."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Div, ast.Mult)):
        origin, model = _origin(value.left)  # None divided by a number raises too
        return (origin, model) if origin is Origin.WITHOUT_LABELS else (None, "")
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and not value.args:
        return DETACHING.get(value.func.attr), ""
    if isinstance(value, ast.Attribute) and value.attr == "loss" and isinstance(value.value, ast.Call):
        call = value.value
        given = {keyword.arg for keyword in call.keywords}
        if isinstance(call.func, ast.Name) and not call.args and given and given <= _INPUTS:
            return Origin.WITHOUT_LABELS, call.func.id
    return None, ""
