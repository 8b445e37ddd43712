"""Metrics of predictions that mean something else than ``compute_metrics`` takes them for."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import keyword, last, returned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def

#: functions that compare predictions with labels
_SCORES = frozenset(
    ("accuracy_score", "f1_score", "precision_score", "recall_score", "compute", "add_batch", "array_equal", "equal")
)
#: methods that change the form of an array and not its order
_FORMS = frozenset(("flatten", "reshape", "ravel", "tolist", "astype", "copy", "view"))


def metric_uses(names: Bindings, trainer: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield metrics that compare predictions with the labels of other tokens, or that take them for logits."""
    function = names.function(keyword(trainer, "compute_metrics"))
    before = names.function(keyword(trainer, "preprocess_logits_for_metrics"))
    if not isinstance(function, ast.FunctionDef) or "ForCausalLM" not in text or len(function.args.args) != 1:
        return
    predictions, labels = _pair(function)
    if not predictions:
        return
    ids = before is not None and bool(returned(before)) and all(_is_argmax(names, one) for one in returned(before))
    again = [
        one for one in walk(function) if isinstance(one, ast.Call) and last(one) == "argmax" and _first(one) in predictions
    ]
    if ids and again:
        yield DataUse("argmax of ids", again[0].lineno)
        return
    wholes = [function, *([before] if before is not None else [])]
    parts = [ast.unparse(one) for whole in wholes for one in walk(whole) if isinstance(one, ast.Subscript)]
    moved = any(mark in part for part in parts for mark in ("1:", ":-1", ": -1")) or "roll" in ast.unparse(function)
    if moved or "shift" in ast.unparse(function) or not (ids or again):
        return
    held = _through(function, predictions | {name for call in again for name in _bound(function, call)})
    labels = _through(function, labels)
    for line, sides in _compared(function):
        texts = {ast.unparse(_whole(side)) for side in sides}
        if texts & held and texts & labels:
            yield DataUse("metrics unshifted", line)
            return


def _compared(function: ast.FunctionDef) -> Iterator[tuple[int, list[ast.expr]]]:
    """Yield (line, values) of each comparison of a metric: ``==``, ``accuracy_score``, ``compute`` of a metric's object."""
    for one in walk(function):
        if isinstance(one, ast.Compare) and isinstance(one.ops[0], ast.Eq):
            yield one.lineno, [one.left, *one.comparators]
        elif isinstance(one, ast.Call) and last(one) in _SCORES:
            yield one.lineno, [*one.args, *(word.value for word in one.keywords)]


def _whole(node: ast.expr) -> ast.expr:
    """Return what a value is taken of: ``labels`` of ``labels[mask].flatten()``."""
    while True:
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _FORMS:
            node = node.func.value
        else:
            return node


def _through(function: ast.FunctionDef, known: set[str]) -> set[str]:
    """Return expressions and the names that a function gives parts of them."""
    for one in walk(function):
        if isinstance(one, ast.Assign) and len(one.targets) == 1 and ast.unparse(_whole(one.value)) in known:
            known = known | {ast.unparse(one.targets[0])}
    return known


def _pair(function: ast.FunctionDef) -> tuple[set[str], set[str]]:
    """Return the expressions of a metric that are the predictions, and those that are the labels."""
    given = function.args.args[0].arg
    predictions, labels = {f"{given}.predictions", f"{given}[0]"}, {f"{given}.label_ids", f"{given}[1]"}
    for one in walk(function):
        if not isinstance(one, ast.Assign) or len(one.targets) != 1:
            continue
        target, value = one.targets[0], ast.unparse(one.value)
        if (
            isinstance(target, ast.Tuple)
            and len(target.elts) == 2
            and value in (given, f"({given}.predictions, {given}.label_ids)")
        ):
            predictions.add(ast.unparse(target.elts[0]))
            labels.add(ast.unparse(target.elts[1]))
        elif value in predictions:
            predictions.add(ast.unparse(target))
        elif value in labels:
            labels.add(ast.unparse(target))
    return predictions, labels


def _is_argmax(names: Bindings, node: ast.expr) -> bool:
    value, _ = names.value(node)
    return isinstance(value, ast.Call) and last(value) == "argmax"


def _first(call: ast.Call) -> str:
    """Return what ``argmax`` is taken of: ``np.argmax(x)``, ``x.argmax()``."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    library = isinstance(owner, ast.Name) and owner.id in ("np", "numpy", "torch")
    return ast.unparse(call.args[0]) if library and call.args else ast.unparse(owner) if owner is not None else ""


def _bound(function: Def, value: ast.Call) -> list[str]:
    """Return the names that a function gives a value."""
    found = [one for one in walk(function) if isinstance(one, ast.Assign) and one.value is value]
    return [ast.unparse(target) for one in found for target in one.targets]
