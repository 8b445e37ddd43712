"""Functions of a script that build a model and can be called without arguments: targets that a project may list."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.python import SourceError, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUILDS = ("from_pretrained", "from_config", "get_peft_model", "prepare_model_for_kbit_training")
#: functions that train, parse a command line or end the process do more than build a model
_DOES_MORE = ("Trainer", "train", "backward", "parse_args", "HfArgumentParser", "exit", "load_dataset", "init_process_group")


def factories(text: str) -> tuple[str, ...]:
    """Return the names of the functions at the top level of a Python text that return a model which they build.

    A function that also trains, or that needs arguments, is left out. No text that is no Python has one.
    """
    try:
        module = parsed(text)
    except SourceError:
        return ()
    functions = [item for item in module.body if isinstance(item, ast.FunctionDef)]
    building = {function.name for function in functions if _returned_model(function)}
    return tuple(f.name for f in functions if f.name in building and not _needs_arguments(f) and not _does_more(f))


def _needs_arguments(function: ast.FunctionDef) -> bool:
    given = function.args
    needed = len(given.posonlyargs) + len(given.args) - len(given.defaults)
    return needed > 0 or any(default is None for default in given.kw_defaults) or bool(function.decorator_list)


def _returned_model(function: ast.FunctionDef) -> bool:
    """Return whether a function returns one value that a call of transformers or PEFT gave a model's name."""
    models: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _makes_model(node.value):
            models.update(target.id for target in node.targets if isinstance(target, ast.Name))
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    return bool(returned) and all(
        _makes_model(value) or (isinstance(value, ast.Name) and value.id in models) for value in returned
    )


def _makes_model(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    name = _last_name(value.func)
    if name not in _BUILDS:
        return False
    owner = _last_name(value.func.value) if isinstance(value.func, ast.Attribute) else ""
    return name not in ("from_pretrained", "from_config") or "Model" in owner or "ForCausalLM" in owner


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _does_more(function: ast.FunctionDef) -> bool:
    return any(name.endswith(_DOES_MORE) for name in _called(function) if name != "for_train")


def _called(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Attribute) and _is_mode(node)):
            yield _last_name(node.func)


def _is_mode(call: ast.Call) -> bool:
    """Return whether a call is ``model.train()``, which sets a mode."""
    return _last_name(call.func) == "train" and isinstance(call.func, ast.Attribute) and _last_name(call.func.value) == "model"
