"""The modules that must compute in float32 for a step to run, found by trial on copies without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from kbitlint.errors import EditError
from kbitlint.model.edits import apply
from kbitlint.model.edits.journal import Journal
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers import adapters
from kbitlint.model.trace.step import UntraceableError, step_of
from kbitlint.model.trace.twin import twin_of
from kbitlint.module_paths import fold
from kbitlint.violation import Edit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kbitlint.model.trace.step import StepSettings

ROUNDS = 8
"""The most trials. Each adds one module and its counterparts in other layers."""


def float32_modules(inner: nn.Module, how: StepSettings, refusing: Iterable[str]) -> tuple[str, ...]:
    """Return the modules that let the step run if they compute in float32 and return the dtype of their input.

    Some code creates a float32 tensor itself: a state, a position, a transform without half-precision kernel. Its product with
    a half-precision input raises. PEFT's ``prepare_model_for_kbit_training`` hides such errors: it casts the embeddings, so
    that all activations are float32. Here only the modules that raise compute in float32.

    Args:
        inner: The model to trace. It is only read.
        how: The settings of the step.
        refusing: Paths of the modules in which a kernel refused its dtypes.

    Returns:
        Paths in the order of discovery. The tuple is empty if no such set lets the step run.
    """
    found: dict[str, None] = {}
    scripted = {path for path, module in named_modules(inner) if isinstance(module, torch.jit.ScriptModule)}  # takes no hooks
    for _ in range(ROUNDS):
        new = _alike([path for path in refusing if path not in found])
        if not new or not scripted.isdisjoint(new):
            return ()
        found.update(dict.fromkeys(new))
        twin = twin_of(inner)
        try:
            apply.apply(twin, [Edit(apply.FLOAT32_MODULE, path) for path in found], Journal())
            step, _, end = step_of(twin, how)
        except (EditError, UntraceableError):
            return ()
        refusing = list(dict.fromkeys(refusal.where for refusal in step.ledger.refusals.values()))
        if not refusing:
            return tuple(found) if end.failure is None else ()
    return ()


def float32_outputs(inner: nn.Module, how: StepSettings) -> tuple[str, ...]:
    """Return the heads that let the step run if they compute in float32 and return float32.

    A loss in the model's own code, such as the distances of boxes in DETR, may have no half-precision kernel. No module holds
    it, so its inputs are widened: the outputs of all heads beside the transformers model in the model.

    Args:
        inner: The model to trace. It is only read.
        how: The settings of the step.

    Returns:
        Paths in the order of the model. The tuple is empty if they do not let the step run.
    """
    heads = tuple(_heads(adapters.base_of(inner)))
    twin = twin_of(inner)
    try:
        apply.apply(twin, [Edit(apply.FLOAT32_MODULE, path, {"output": "float32"}) for path in heads], Journal())
        step, _, end = step_of(twin, how)
    except (EditError, UntraceableError):
        return ()
    return heads if heads and end.failure is None and not step.ledger.refusals else ()


def _heads(base: nn.Module) -> Iterator[str]:
    """Yield the paths of the modules beside the transformers models in a model."""
    for name, child in base.named_children():
        if any(isinstance(module, PreTrainedModel) for module in child.modules()):
            continue
        if isinstance(child, nn.ModuleList):
            yield from (f"{name}.{index}" for index in range(len(child)))
        elif any(True for _ in child.parameters()) and not isinstance(child, torch.jit.ScriptModule):
            yield name


def _alike(refusing: list[str]) -> list[str]:
    """Return the first path and its counterparts in other layers. Later refusals may only be its consequence."""
    return [path for path in refusing if fold(path) == fold(refusing[0])]
