"""Batches that a collator or a format puts onto the GPU, inside of a loader that pins them or has workers."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.object_faults import ObjectFault
from kbitlint.source.nodes import last_name, line_offset, walk
from kbitlint.source.text.placed_calls import FUNCTIONS, assigned, calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def gpu_batches(module: ast.Module, text: str) -> Iterator[ObjectFault]:
    """Yield each collator or format that puts batches onto the GPU before a loader can pin them or send them over."""
    if "cuda" not in text:
        return
    values = assigned(module)
    makers = {
        node.name: moved
        for node in walk(module)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and (moved := _moved(node, values)) is not None
    }
    for node in walk(module):
        if not isinstance(node, ast.Call):
            continue
        named = {one.arg: one.value for one in node.keywords}
        trains, loads = last_name(node.func).endswith("Trainer"), last_name(node.func) == "DataLoader"
        given = named.get("data_collator" if trains else "collate_fn") if trains or loads else None
        given = given.func if isinstance(given, ast.Call) else given
        if given is None:
            continue
        moved = _moved(given, values) if isinstance(given, ast.Lambda) else makers.get(last_name(given))
        why = _why(named, values, trains=trains) if moved is not None else ""
        if why and moved is not None:
            yield _fault("gpu batch", last_name(given) or "the collator", moved, text, why)
    yield from _formats(module, text, values)


def _formats(module: ast.Module, text: str, values: Mapping[str, list[ast.expr]]) -> Iterator[ObjectFault]:
    trainers = [node for node in walk(module) if isinstance(node, ast.Call) and last_name(node.func).endswith("Trainer")]
    whys = {_why({one.arg: one.value for one in node.keywords}, values, trains=True) for node in trainers}
    for node in walk(module):
        device = [one.value for one in getattr(node, "keywords", ()) if one.arg == "device"]
        if calls(node, "with_format", "set_format") and device and _is_gpu(device[0], values) and len(whys) == 1:
            why = next(iter(whys))
            if why and isinstance(node, ast.Call):
                yield _fault("gpu batch", last_name(node.func), node, text, why)


def _why(named: Mapping[str | None, ast.expr], values: Mapping[str, list[ast.expr]], *, trains: bool) -> str:
    """Return what the loader does that a batch on the GPU does not survive; empty if it does nothing, or is not known."""
    if trains:
        args = named.get("args", ast.Call(ast.Name("TrainingArguments"), [], []))
        found = values.get(args.id, [args]) if isinstance(args, ast.Name) else [args]
        if len(found) != 1 or not isinstance(found[0], ast.Call) or any(one.arg is None for one in found[0].keywords):
            return ""
        named = {one.arg: one.value for one in found[0].keywords}
    prefix = "dataloader_" if trains else ""
    pins, workers = named.get(f"{prefix}pin_memory"), named.get(f"{prefix}num_workers")
    if isinstance(workers, ast.Constant) and isinstance(workers.value, int) and workers.value > 0:
        return "a worker process of the loader cannot initialize CUDA again: a RuntimeError"
    pinned = (trains and pins is None) or (isinstance(pins, ast.Constant) and pins.value is True)
    return "the loader pins each batch, and only tensors of the CPU can be pinned: a RuntimeError" if pinned else ""


def _moved(function: ast.AST, values: Mapping[str, list[ast.expr]]) -> ast.Call | None:
    """Return the call by which a function or class moves a batch onto the GPU; None if none does, or if one moves it back."""
    if any(calls(one, "cpu") for one in walk(function)):
        return None
    return next((one for one in walk(function) if isinstance(one, ast.Call) and _onto_gpu(one, values)), None)


def _onto_gpu(node: ast.AST, values: Mapping[str, list[ast.expr]]) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return node.func.attr == "cuda" or (node.func.attr == "to" and bool(node.args) and _is_gpu(node.args[0], values))


def _is_gpu(value: ast.expr, values: Mapping[str, list[ast.expr]]) -> bool:
    """Return whether a value names a GPU, if there is one."""
    if isinstance(value, ast.Name):
        found = values.get(value.id, ())
        return len(found) == 1 and not isinstance(found[0], ast.Name) and _is_gpu(found[0], values)
    if isinstance(value, ast.IfExp):
        return _is_gpu(value.body, values)
    if isinstance(value, ast.Call) and last_name(value.func) == "device" and value.args:
        return _is_gpu(value.args[0], values)
    return isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value.startswith("cuda")


def _fault(kind: str, name: str, node: ast.Call, text: str, detail: str) -> ObjectFault:
    return ObjectFault(kind, "", name, node.lineno, line_offset(text, node.lineno), detail=detail)
