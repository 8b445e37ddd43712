"""Schedules of Lightning modules that count steps, and that Lightning moves once for each epoch."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.nodes import last_name, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

#: functions of transformers and classes of torch whose arguments count steps
_STEPPED = ("get_linear_schedule", "get_cosine_", "get_polynomial_", "get_constant_schedule_with", "get_scheduler", "get_wsd_")
_CLASSES = ("OneCycleLR",)


def schedules(module: ast.Module) -> Iterator[tuple[str, str, int, str]]:
    """Yield each schedule that counts steps and is returned by ``configure_optimizers`` without an interval.

    The parts are the kind of fault, the function that made it, the line of the result, and nothing more.
    """
    for cls in (one for one in walk(module) if isinstance(one, ast.ClassDef)):
        methods = {one.name: one for one in cls.body if isinstance(one, ast.FunctionDef)}
        method = methods.get("configure_optimizers")
        if method is None or "lr_scheduler_step" in methods or "automatic_optimization" in ast.unparse(cls):
            continue
        for one in (node for node in walk(method) if isinstance(node, ast.Return)):
            made = _unpaced(method, one.value) if one.value is not None else ""
            if made:
                yield "per epoch", made, one.lineno, ""


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
