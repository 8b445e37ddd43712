"""Schedules that count steps or batches, and that move with something else: in loops of the file and in Lightning."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import LoopFault, Oversight
from kbitlint.source.nodes import last_name, walk
from kbitlint.source.text.placed_calls import FUNCTIONS, LOOPS, optimizes, owner, placed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: functions of transformers and classes of torch whose arguments count steps
_STEPPED = ("get_linear_schedule", "get_cosine_", "get_polynomial_", "get_constant_schedule_with", "get_scheduler", "get_wsd_")
_CLASSES = ("OneCycleLR",)


def schedule_paces(module: ast.Module, values: Mapping[str, list[ast.expr]]) -> Iterator[LoopFault]:
    """Yield each schedule that counts batches and moves with an epoch.

    Args:
        module: The file.
        values: What the file assigns to each name.
    """
    for loop in (node for node in walk(module) if isinstance(node, LOOPS)):
        yield from _each_epoch(loop, values)


def _each_epoch(loop: ast.AST, values: Mapping[str, list[ast.expr]]) -> Iterator[LoopFault]:
    """Yield the step of a schedule that counts batches in a loop around the one that takes steps."""
    inner = [node for node in walk(loop) if node is not loop and isinstance(node, LOOPS)]
    within = [at.call for node in inner for at in placed(node) if last_name(at.call.func) == "step"]
    if any(isinstance(node, FUNCTIONS) for node in walk(loop)) or not any(optimizes(owner(one)) for one in within):
        return
    for at in placed(loop):
        by = owner(at.call)
        if last_name(at.call.func) != "step" or "sched" not in by.lower() or len(values.get(by, ())) != 1:
            continue
        total = _total(values[by][0], values)
        if total is not None and "len(" in total and "*" in total and by not in {owner(one) for one in within}:
            yield LoopFault(Oversight.SLOW_SCHEDULE, at.call.lineno, f"{by}.step", "")


def _total(value: ast.expr, values: Mapping[str, list[ast.expr]]) -> str | None:
    """Return the number of training steps that a schedule of transformers gets, as code; None if it is not known."""
    given = {one.arg: one.value for one in getattr(value, "keywords", ())}
    whole = last_name(value.func) if isinstance(value, ast.Call) else ""
    if not whole.startswith("get_") or "sched" not in whole:
        return None
    total = given.get("num_training_steps")
    place = 3 if whole == "get_scheduler" else 2
    if total is None and isinstance(value, ast.Call) and len(value.args) > place:
        total = value.args[place]
    for _ in range(2):
        if isinstance(total, ast.Name) and len(values.get(total.id, ())) == 1:
            total = values[total.id][0]
    return ast.unparse(total) if total is not None else None


def counts_steps(value: ast.expr, values: Mapping[str, list[ast.expr]]) -> bool:
    """Return whether the length of a schedule is divided by the number of batches for one step."""
    total = _total(value, values) or ""
    divides = "/" in total
    return divides and ("accum" in total.lower() or any(_divisor(one, values) for one in total.split("/")[1:]))


def _divisor(code: str, values: Mapping[str, list[ast.expr]]) -> bool:
    return any("accum" in ast.unparse(one).lower() for one in values.get(code.strip(" ()"), ()))


def lightning_paces(module: ast.Module) -> Iterator[LoopFault]:
    """Yield each schedule that counts steps and is returned by ``configure_optimizers`` without an interval."""
    for cls in (one for one in walk(module) if isinstance(one, ast.ClassDef)):
        methods = {one.name: one for one in cls.body if isinstance(one, ast.FunctionDef)}
        method = methods.get("configure_optimizers")
        if method is None or "lr_scheduler_step" in methods or "automatic_optimization" in ast.unparse(cls):
            continue
        for one in (node for node in walk(method) if isinstance(node, ast.Return)):
            made = _unpaced(method, one.value) if one.value is not None else ""
            if made:
                yield LoopFault(Oversight.EPOCH_SCHEDULE, one.lineno, made, "")


def _unpaced(method: ast.FunctionDef, value: ast.expr) -> str:
    """Return the function that made a schedule which a result holds without an interval; empty if there is none."""
    given: ast.expr | None = None
    if isinstance(value, ast.Dict):
        keys = [one.value if isinstance(one, ast.Constant) else None for one in value.keys]
        given = value.values[keys.index("lr_scheduler")] if "lr_scheduler" in keys else None
    elif (
        isinstance(value, ast.Tuple) and len(value.elts) == 2 and isinstance(value.elts[1], ast.List) and value.elts[1].elts
    ):  # optimizers and schedules
        given = value.elts[1].elts[0]
    given = _held(method, given)
    if isinstance(given, ast.Dict):
        keys = [one.value if isinstance(one, ast.Constant) else None for one in given.keys]
        if None in keys or "interval" in keys or "scheduler" not in keys:
            return ""
        given = _held(method, given.values[keys.index("scheduler")])
    name = last_name(given.func) if isinstance(given, ast.Call) else ""
    return name if name.startswith(_STEPPED) or name in _CLASSES else ""


def _held(method: ast.FunctionDef, node: ast.expr | None) -> ast.expr | None:
    """Return the expression that a name of a method is bound to, if it is bound once; another expression as it is."""
    if not isinstance(node, ast.Name):
        return node
    bound = [
        one.value
        for one in walk(method)
        if isinstance(one, ast.Assign) and any(isinstance(to, ast.Name) and to.id == node.id for to in one.targets)
    ]
    return bound[0] if len(bound) == 1 else None
