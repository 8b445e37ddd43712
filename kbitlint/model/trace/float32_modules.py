"""The modules that must compute in float32 for a step to run, found by trial on copies without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.errors import EditError
from kbitlint.model.edits import apply
from kbitlint.model.edits.journal import Journal
from kbitlint.model.trace.step import UntraceableError, step_of
from kbitlint.model.trace.twin import twin_of
from kbitlint.module_paths import fold
from kbitlint.violation import Edit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

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
    for _ in range(ROUNDS):
        new = _alike([path for path in refusing if path not in found])
        if not new:
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


def _alike(refusing: list[str]) -> list[str]:
    """Return the first path and its counterparts in other layers. Later refusals may only be its consequence."""
    return [path for path in refusing if fold(path) == fold(refusing[0])]
