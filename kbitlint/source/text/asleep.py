"""Loops that train on after an evaluation has put the model into eval mode, read from the text."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings


def asleep_uses(module: ast.Module, names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield each call inside a training loop that leaves the model in eval mode, where nothing in the loop wakes it."""
    if ".eval()" not in text or ".backward(" not in text or "use_gradient_checkpointing=False" in text:
        return
    if "prepare_model_for_kbit_training(" not in text and "gradient_checkpointing_enable(" not in text:
        return
    inside = {id(loop): list(walk(loop)) for loop in walk(module) if isinstance(loop, (ast.For, ast.While))}
    for nodes in inside.values():
        around = [one for one in inside.values() if any(part is nodes[0] for part in one)]
        calls = [one for one in nodes if isinstance(one, ast.Call)]
        if not any(last(one) == "backward" for one in calls) or any(_wakes(one) for one in around):
            continue
        for call in calls:
            if _sleeps(names, call) and not _ends(nodes, call):
                yield DataUse("asleep from an evaluation on", call.lineno)
                return


def _wakes(nodes: list[ast.AST]) -> bool:
    return any(isinstance(one, ast.Call) and last(one) == "train" for one in nodes)


def _sleeps(names: Bindings, call: ast.Call) -> bool:
    """Return whether a call of a function of the script puts its model into eval mode and leaves it there."""
    function = names.function(call.func) if isinstance(call.func, ast.Name) else None
    if not isinstance(function, ast.FunctionDef) or function.decorator_list[1:]:
        return False
    given = {one.id for one in call.args if isinstance(one, ast.Name)} | {one.arg for one in function.args.args}
    inner = [one for one in walk(function) if isinstance(one, ast.Call)]
    sleeps = any(
        last(one) == "eval" and not one.args and isinstance(one.func, ast.Attribute) and ast.unparse(one.func.value) in given
        for one in inner
    )
    return sleeps and not _wakes(list(inner)) and not any(last(one) in ("backward", "exit") for one in inner)


def _ends(nodes: list[ast.AST], call: ast.Call) -> bool:
    """Return whether the branch that holds a call leaves the loop at its end."""
    branches = [one for one in nodes if isinstance(one, ast.If) and any(part is call for part in walk(one))]
    return any(isinstance(one.body[-1], (ast.Break, ast.Return)) for one in branches)
