"""Batches on the GPU, Trainers that save without having trained, and trainings that resume from a new folder."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.object_faults import ObjectFault
from kbitlint.source.nodes import last_name, walk
from kbitlint.source.text.placed_calls import FUNCTIONS, assigned, calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: attributes of a Trainer by which it may train, or hand its model to a loop
_TRAINS = frozenset(("train", "evaluate", "predict", "hyperparameter_search", "accelerator", "training_step", "optimizer"))
#: functions whose result is new with each start
_NEW = frozenset(("uuid4", "uuid1", "mkdtemp", "token_hex", "time_ns", "isoformat"))
_SECONDS = ("%S", "%f", "%s", "%T", "%X", "%c")
_SAVES = (".save_model(", ".save_pretrained(", ".push_to_hub(")


def gpu_batches(module: ast.Module, text: str) -> Iterator[ObjectFault]:
    """Yield each collator or format that puts batches onto the GPU before a loader can pin them or send them over."""
    if "cuda" not in text:
        return
    values = assigned(module)
    makers = {
        node.name
        for node in walk(module)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and any(_onto_gpu(one, values) for one in walk(node))
    }
    for node in walk(module):
        if not isinstance(node, ast.Call):
            continue
        named = {one.arg: one.value for one in node.keywords}
        trains, loads = last_name(node.func).endswith("Trainer"), last_name(node.func) == "DataLoader"
        given = named.get("data_collator" if trains else "collate_fn") if trains or loads else None
        given = given.func if isinstance(given, ast.Call) else given
        why = _why(named, values, trains=trains) if given is not None and last_name(given) in makers else ""
        if why and given is not None:
            yield _fault("gpu batch", last_name(given), node, text, why)
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
        args = named.get("args")
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


def untrained(module: ast.Module, text: str) -> Iterator[ObjectFault]:
    """Yield each Trainer of a script that saves its model, and in which nothing trains."""
    if "train(" in text or ".backward(" in text or "train_loop" in text or not any(one in text for one in _SAVES):
        return
    for name, found in assigned(module).items():
        if len(found) != 1 or not isinstance(found[0], ast.Call) or not name.isidentifier():
            continue
        if not last_name(found[0].func).endswith("Trainer") or ".train" in text.replace(f"{name}.train_dataset", ""):
            continue
        uses = [node for node in walk(module) if isinstance(node, ast.Name) and node.id == name]
        owned = [node.attr for node in walk(module) if isinstance(node, ast.Attribute) and _is(node.value, name)]
        if len(uses) == len(owned) + 1 and not _TRAINS & set(owned):  # one use is the assignment
            yield _fault("untrained", name, found[0], text, "")


def resumed(module: ast.Module, text: str) -> Iterator[ObjectFault]:
    """Yield each training that resumes from the last checkpoint of a folder which the script has just named anew."""
    if "resume_from_checkpoint" not in text or "get_last_checkpoint" in text:
        return
    values = assigned(module)
    nodes = [node for node in walk(module) if isinstance(node, ast.Call)]
    folders = [one.value for node in nodes for one in node.keywords if one.arg == "output_dir"]
    fresh = [value for value in folders if _is_new(value, values, 3)]
    for node in nodes if len(fresh) == len(folders) == 1 else ():
        asked = (one.value for one in node.keywords if one.arg == "resume_from_checkpoint" and last_name(node.func) == "train")
        for one in asked:
            if isinstance(one, ast.Constant) and one.value is True:
                yield _fault("new folder", ast.unparse(fresh[0]), node, text, "")


def _is_new(value: ast.expr, values: Mapping[str, list[ast.expr]], depth: int) -> bool:
    """Return whether a value has the time, or a random text, in it."""
    for node in walk(value):
        if isinstance(node, ast.Call) and last_name(node.func) in _NEW:
            return True
        if isinstance(node, ast.Call) and last_name(node.func) == "strftime":
            return any(sign in ast.unparse(node) for sign in _SECONDS)  # a folder of the day may have checkpoints
        found = values.get(node.id, ()) if isinstance(node, ast.Name) else ()
        if depth and len(found) == 1 and _is_new(found[0], values, depth - 1):
            return True
    return False


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _fault(kind: str, name: str, node: ast.Call, text: str, detail: str) -> ObjectFault:
    start = sum(len(one) + 1 for one in text.split("\n", node.lineno - 1)[: node.lineno - 1])
    return ObjectFault(kind, "", name, node.lineno, start, detail=detail)
