"""What functions of a script return to the Trainer that calls them, where it cannot use it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import children, is_trainer, walk
from kbitlint.source.text.bindings import is_constant, keyword, last, returned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def

#: functions whose result a Trainer uses
_USED = ("reward_funcs", "compute_metrics", "formatting_func", "data_collator", "compute_loss_func")
#: words of code that evaluates
EVALUATES = ("eval_strategy", "evaluation_strategy", ".evaluate(")
#: methods whose result is a number
_NUMBERS = ("mean", "item", "sum", "accuracy_score", "f1_score", "float", "round")


def result_uses(module: ast.Module, names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield each function whose result its Trainer cannot use."""
    for call in names.calls:
        name = names.full(call.func)
        if is_trainer(name):
            yield from _given(names, call, text)
    for cls in (one for one in module.body if isinstance(one, ast.ClassDef)):
        if any(
            names.full(base).startswith(("transformers.", "trl.")) and ast.unparse(base).endswith("Trainer")
            for base in cls.bases
        ):
            yield from _losses(names, cls, text)


def _given(names: Bindings, trainer: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield the functions that a Trainer is given and that return nothing, or metrics that are no dict."""
    evaluates = keyword(trainer, "eval_dataset") is not None and any(one in text for one in EVALUATES)
    for argument in _USED:
        value, _ = names.value(keyword(trainer, argument))
        for one in value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]:
            function = names.function(one)
            if not isinstance(function, ast.FunctionDef) or function.decorator_list or _yields(function):
                continue
            if argument == "compute_metrics" and not evaluates:
                continue
            values = returned(function)
            if not values and not any(isinstance(node, ast.Raise) for node in walk(function)):
                yield DataUse("function without result", function.lineno, function.name)
            elif argument == "compute_metrics" and all(_is_number(names, found) for found in values):
                yield DataUse("metrics without names", values[0].lineno, function.name)


def _is_number(names: Bindings, node: ast.expr) -> bool:
    value, _ = names.value(node)
    if isinstance(value, (ast.BinOp, ast.Compare)):
        return not isinstance(value, ast.BinOp) or not isinstance(value.op, ast.BitOr)
    if isinstance(value, ast.Constant):
        return value.value is not None
    return isinstance(value, ast.Call) and last(value) in _NUMBERS


def _losses(names: Bindings, cls: ast.ClassDef, text: str) -> Iterator[DataUse]:
    """Yield what ``compute_loss`` of a subclass of a Trainer returns instead of a loss."""
    method = next((one for one in cls.body if isinstance(one, ast.FunctionDef) and one.name == "compute_loss"), None)
    if method is None or method.decorator_list or len(method.args.args) < 2:  # self and the model
        return
    model, values = method.args.args[1].arg, returned(method)
    if not values and not any(isinstance(node, ast.Raise) for node in walk(method)):
        yield DataUse("function without result", method.lineno, f"{cls.name}.compute_loss")
    wrong = False
    for node in values:
        value, _ = names.value(node)
        called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == model
        if called and keyword(value, "return_dict") is None:  # type: ignore[arg-type]  # a call
            wrong = True
            yield DataUse("outputs for a loss", node.lineno, f"{cls.name}.compute_loss")
    evaluates = any(one in text for one in EVALUATES) and not any(f'{one}="no"' in text for one in EVALUATES)
    asked = any(one.arg == "return_outputs" for one in method.args.args)
    read = any(isinstance(node, ast.Name) and node.id == "return_outputs" for node in walk(method))
    plain = bool(values) and not any(isinstance(one, (ast.Tuple, ast.IfExp, ast.Call, ast.Starred)) for one in values)
    if (
        evaluates
        and asked
        and not read
        and plain
        and not wrong
        and "eval_dataset" in text
        and "def prediction_step" not in text
    ):
        yield DataUse("loss without outputs", values[0].lineno, f"{cls.name}.compute_loss")


def _yields(function: Def) -> bool:
    """Return whether a function is a generator."""
    todo = [*children(function)]
    for one in todo:
        if isinstance(one, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(one, (ast.FunctionDef, ast.Lambda)):
            todo += children(one)
    return False


def forked_cuda(names: Bindings, call: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield a ``map`` in several processes whose function computes on a GPU."""
    count, _ = names.value(keyword(call, "num_proc"))
    if not isinstance(count, ast.Constant) or not isinstance(count.value, int) or count.value < 2:  # several
        return
    if "start_method" in text or "spawn" in text:
        return
    function = names.function(call.args[0] if call.args else keyword(call, "function"))
    for node in walk(function) if function is not None else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            device = node.args[0] if node.func.attr == "to" and node.args else None
            if (node.func.attr == "cuda" and not node.args) or is_constant(names.value(device)[0], "cuda"):
                yield DataUse("GPU in several processes", node.lineno, str(count.value))
                return
