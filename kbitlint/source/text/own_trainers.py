"""Losses and steps that a script's own Trainer computes, read from the text as one round of its training loop."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import Act, LoopAct, Origin, OwnLoop
from kbitlint.source.nodes import full_name, is_trainer, walk
from kbitlint.source.text.own_loops import DETACHING, turns_off

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: functions and modules that compute with what they are given, and hold no parameters
_PURE = frozenset(("torch", "F", "functional", "math", "np", "numpy"))
#: functions whose result has no graph
_WITHOUT_GRAPH = frozenset(("torch.tensor", "torch.as_tensor", "float", "int"))
_NUMBERS = frozenset(("float", "int"))
_LIGHTNING = frozenset(f"{package}.LightningModule" for package in ("lightning", "lightning.pytorch", "pytorch_lightning"))


def trainer_rounds(module: ast.Module, imports: Sequence[tuple[str, str]]) -> Iterator[OwnLoop]:
    """Yield the round of each Trainer whose class returns a loss without a graph, or whose step goes nowhere backward.

    Args:
        module: The syntax tree of the script.
        imports: Its imports: (full name, local name).
    """
    full = {local: name for name, local in imports}
    for cls in (node for node in module.body if isinstance(node, ast.ClassDef)):
        bases = [full_name(ast.unparse(base), full) for base in cls.bases]
        if not _LIGHTNING.isdisjoint(bases):
            yield from _lightning_rounds(cls)
        if not any(is_trainer(base) for base in bases):
            continue
        for method in (one for one in cls.body if isinstance(one, ast.FunctionDef) and not one.decorator_list):
            if method.name == "compute_loss" and (found := _dead_loss(method)) is not None:
                yield OwnLoop(method.lineno, (found,))
            if method.name == "training_step" and not _goes_on(method):
                acts = (LoopAct(act, f"{cls.name}.training_step", method.lineno) for act in (Act.STEP, Act.CLEAR))
                yield OwnLoop(method.lineno, tuple(acts))


def _lightning_rounds(cls: ast.ClassDef) -> Iterator[OwnLoop]:
    """Yield the step of a module of Lightning that returns no loss: Lightning leaves out its backward pass and its update.

    ``lightning/pytorch/loops/optimization/automatic.py``: a ``training_step`` that returned None is skipped, with a warning.
    """
    steps = [one for one in cls.body if isinstance(one, ast.FunctionDef) and one.name == "training_step"]
    if (
        len(steps) != 1
        or steps[0].decorator_list
        or "automatic_optimization" in {node.attr for node in walk(cls) if isinstance(node, ast.Attribute)}
    ):
        return
    inner = list(walk(steps[0]))
    returned = [node.value for node in inner if isinstance(node, ast.Return) and node.value is not None]
    gives = any(not isinstance(value, ast.Constant) or value.value is not None for value in returned)
    others = any(isinstance(node, (ast.Yield, ast.YieldFrom, ast.Raise)) for node in inner)
    if (
        not gives
        and not others
        and not any(ast.unparse(node.func).endswith("backward") for node in inner if isinstance(node, ast.Call))
    ):
        acts = (LoopAct(act, f"{cls.name}.training_step", steps[0].lineno) for act in (Act.STEP, Act.CLEAR))
        yield OwnLoop(steps[0].lineno, tuple(acts))


def _goes_on(method: ast.FunctionDef) -> bool:
    """Return whether a step leaves the backward pass to the Trainer or to another function of its own."""
    computes = {"compute_loss", "train", "eval", "detach", "item", "_prepare_inputs", "compute_loss_context_manager", "mean"}
    for node in walk(method):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if name not in computes:
                return True
    return False


def _dead_loss(method: ast.FunctionDef) -> LoopAct | None:
    """Return the backward pass from a loss that has no graph on any way out; None if one has or may have."""
    returned = [node for node in walk(method) if isinstance(node, ast.Return) and node.value is not None]
    inner = (node for node in walk(method) if node is not method)
    if not returned or any(isinstance(node, (ast.Yield, ast.Lambda, ast.FunctionDef)) for node in inner):
        return None
    values = _Values(method)
    origins = [values.origin(_loss_of(node.value)) for node in returned if node.value is not None]
    if None in origins or Origin.DATA in origins:
        return None
    return LoopAct(Act.BACKWARD, "compute_loss", returned[-1].lineno, origins[-1])


def _loss_of(value: ast.expr) -> ast.expr:
    """Return the loss of what ``compute_loss`` returns: ``(loss, outputs) if return_outputs else loss``."""
    if isinstance(value, ast.IfExp):
        return _loss_of(value.orelse)
    return value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value


class _Values:
    """What the names of a method hold.

    Args:
        method: The method. Its third argument is the batch.
    """

    def __init__(self, method: ast.FunctionDef) -> None:
        places = [one.arg for one in method.args.args]
        self._known: dict[str, Origin | None] = {places[2]: Origin.DATA} if len(places) > 2 else {}
        self._block(method.body, grad=True)

    def _block(self, body: list[ast.stmt], *, grad: bool) -> None:
        for statement in body:
            if isinstance(statement, ast.With):
                off = any(turns_off(item.context_expr) for item in statement.items)
                self._block(statement.body, grad=grad and not off)
            elif isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
                found = self.origin(statement.value)
                names = (target.id for target in statement.targets if isinstance(target, ast.Name))
                self._known.update(dict.fromkeys(names, found if grad or found is not None else Origin.WITHOUT_GRAD))
            else:  # what is bound in another way, or on some ways only, may have a graph
                stored = (node for node in walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
                self._known.update(dict.fromkeys((node.id for node in stored), None))

    def origin(self, node: ast.expr) -> Origin | None:
        """Return why a value has no graph; None if it has or may have one."""
        if isinstance(node, ast.Name):
            return self._known.get(node.id)
        if isinstance(node, ast.Constant):
            return Origin.DATA
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            return self.origin(node.value)
        if isinstance(node, ast.BinOp):
            return _both([self.origin(node.left), self.origin(node.right)])
        if isinstance(node, ast.UnaryOp):
            return self.origin(node.operand)
        return self._of_call(node) if isinstance(node, ast.Call) else None

    def _of_call(self, call: ast.Call) -> Origin | None:
        name, given = ast.unparse(call.func), [self.origin(one) for one in (*call.args, *(one.value for one in call.keywords))]
        if name in _WITHOUT_GRAPH:
            return Origin.NUMBER if name in _NUMBERS else Origin.DETACHED
        if isinstance(call.func, ast.Attribute):
            if call.func.attr in DETACHING and not call.args:
                return DETACHING[call.func.attr]
            if name.partition(".")[0] in _PURE:
                return _both(given)
            if isinstance(call.func.value, ast.Name) and call.func.value.id not in self._known:
                return None  # a module or an object that may hold parameters
            return _both([self.origin(call.func.value), *given])
        return None


def _both(origins: list[Origin | None]) -> Origin | None:
    """Return why a value that is made of others has no graph; None if one of them may have one."""
    if None in origins:
        return None
    return next((one for one in origins if one is not Origin.DATA), Origin.DATA)
