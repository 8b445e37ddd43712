"""Entries of an argument: the keys of a dictionary or of ``**kwargs``, and the attributes of an object.

Users' modules take a whole batch as one argument, and no signature tells what it holds. Each failed forward tells one entry.
An entry is an argument of its own, whose name is the way to it: ``batch.tokens``.
"""

from __future__ import annotations

import copy
import re
import types
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.model.inputs.recipes import Items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kbitlint.model.inputs.failed_batch import Batch
    from kbitlint.model.inputs.failure import Failure
    from kbitlint.model.inputs.plan import Plan

#: The kinds of an argument that holds entries: read by key, and read by attribute.
MAPPING, RECORD = "mapping", "record"
_READ_BY_KEY = re.compile(r"\b(\w+)(?:\[|\.pop\()['\"](\w+)['\"]")
_ATTRIBUTE = re.compile(r"\b(\w+)\.(\w+)\b")
_LACKS = re.compile(r"object has no attribute '(\w+)'")


def entry_of(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """Yield plans with the entry that a forward has missed: of a dictionary, of an object, or of ``**kwargs``."""
    if failure.kind in ("KeyError", "IndexError", "TypeError"):
        for holder, key in _READ_BY_KEY.findall(failure.line):
            if key not in failure.words and failure.kind == "KeyError":
                continue
            if holder in batch.arguments:
                yield _with_entry(plan, holder, key, MAPPING)
            elif failure.kind == "KeyError" and batch.takes_any:
                yield plan.changed(given={key})
    if failure.kind == "KeyError":
        for holder in batch.mappings:
            yield from (_with_entry(plan, holder, key, MAPPING) for key in failure.words if key not in batch.arguments)
    lacking = _LACKS.search(failure.message) if failure.kind == "AttributeError" else None
    for holder, name in _ATTRIBUTE.findall(failure.line):
        if lacking and name == lacking[1] and holder in batch.arguments:
            yield _with_entry(plan, holder, name, RECORD)


def _with_entry(plan: Plan, holder: str, key: str, kind: str) -> Plan:
    return plan.changed(given={f"{holder}.{key}"}, kinds={holder: kind})


def undocumented(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """Yield plans that give another shape or dtype to an argument without documentation: indices, targets, or scores."""
    named = [name for name in batch.plain if name.rpartition(".")[2] in failure.line] or batch.plain
    if re.search(r"[Ii]ndices|tensors used as indices", failure.message):
        yield from (plan.changed(kinds={name: "long"}) for name in named)
    if failure.in_loss or re.search(r"size|shape|match|broadcast", failure.message):
        samples, steps = batch.dimensions.batch, batch.dimensions.seq_len
        for name in reversed(named):
            for kind, shape in (
                ("long", (samples,)),
                ("long", (samples, steps)),
                ("float", (samples,)),
                ("float", (samples, steps)),
            ):
                yield plan.changed(kinds={name: kind}, shapes={name: shape})


def gathered(made: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return a batch with its entries in the arguments that hold them."""
    found = {name: value for name, value in made.items() if "." not in name}
    for name in made.keys() - found.keys():
        holder, _, key = name.rpartition(".")
        held = found.get(holder)
        if plan.kinds.get(holder) == RECORD:
            found[holder] = held if isinstance(held, types.SimpleNamespace) else types.SimpleNamespace()
            setattr(found[holder], key, made[name])
        else:
            found[holder] = {**(held if isinstance(held, dict) else {}), key: made[name]}
    return found


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with each of its tensors changed. Plain lists stay as they are: targets of a loss."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return type(value)({name: changed(item, change) for name, item in value.items()})
    if type(value) in (tuple, Items):
        return type(value)(changed(item, change) for item in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(changed(item, change) for item in value))
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict) or isinstance(value, (type, nn.Module, types.FunctionType, types.ModuleType)):
        return value
    made = copy.copy(value)  # an object of the user's, such as a dataclass or a graph
    vars(made).update({name: changed(item, change) for name, item in held.items()})
    return made


def taken_apart(made: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each value of a batch under the name of its argument or entry."""
    for name, value in made.items():
        held = vars(value) if isinstance(value, types.SimpleNamespace) else value
        if isinstance(held, dict):
            yield from ((f"{name}.{key}", item) for key, item in held.items())
        else:
            yield name, value
