"""The outline of a model: its module tree with the facts of one walk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.facts.reentry import Reentry
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers.adapters import base_of
from kbitlint.result import ModuleOutline

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.facts.layers import Packing
    from kbitlint.facts.model import ModelFacts, ParameterFacts

_REENTRY = {Reentry.NO: "without reentry", Reentry.YES: "reentrant", Reentry.UNSET: "reentrant", Reentry.UNKNOWN: "unknown"}


def outline_of(model: nn.Module, facts: ModelFacts) -> tuple[ModuleOutline, ...]:
    """Return every module that holds parameters, itself or in its children. Parents precede children.

    Paths are those of reports. Wrappers outside the base model appear only if they hold parameters of their own.

    Args:
        model: The model. It is only read.
        facts: Facts of a walk over it.
    """
    own: dict[str, list[ParameterFacts]] = {}
    for parameter in facts.parameters:
        own.setdefault(parameter.module, []).append(parameter)
    packed = {layer.path: layer.packing for layer in (*facts.quantized, *facts.packed_banks)}
    checkpoints = {c.path: _REENTRY[c.reentry] if c.enabled else "no" for c in facts.checkpoints}
    shown = _with_parents(own)
    base: Any = base_of(model)
    inside = {id(module) for module in base.modules()}
    found: dict[str, ModuleOutline] = {}
    for path, module in named_modules(model):
        if path in found or path not in shown or not (id(module) in inside or path in own):
            continue
        if not path and module is not base:
            continue
        found[path] = _module(module, path, own.get(path, []), packed, checkpoints.get(path, ""))
    return tuple(found.values())


def _with_parents(paths: dict[str, list[ParameterFacts]]) -> set[str]:
    shown = {""}
    for path in paths:
        while path and path not in shown:
            shown.add(path)
            path = path.rpartition(".")[0]  # noqa: PLW2901  # the loop goes up to the root
    return shown


def _module(
    module: nn.Module, path: str, parameters: list[ParameterFacts], packed: dict[str, Packing], checkpoints: str
) -> ModuleOutline:
    stored: dict[str, int] = {}
    numel = trainable = 0
    shape: tuple[int, ...] = ()
    for parameter in parameters:
        packing = packed.get(parameter.path, packed.get(path)) if parameter.packed else None
        features = packing.features if packing is not None else None
        count = features[0] * features[1] if features else parameter.numel
        numel += count
        trainable += count if parameter.requires_grad else 0
        name = packing.kind if packing is not None else parameter.dtype
        stored[name] = stored.get(name, 0) + parameter.nbytes
        if parameter.path.endswith("weight") or len(parameters) == 1:
            shape = (features[1], features[0]) if features else parameter.shape
    return ModuleOutline(
        path,
        type(module).__name__,
        shape=tuple(shape),
        numel=numel,
        trainable=trainable,
        stored=tuple(stored.items()),
        checkpoints=checkpoints,
        adapter=bool(parameters) and all(parameter.adapter for parameter in parameters),
        norm=any(parameter.norm for parameter in parameters),
    )
