"""Which modules have to compute in float32 for a step to run: found by trying it on copies without weights."""

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


def float32_modules(inner: nn.Module, how: StepSettings, refusing: Iterable[str]) -> tuple[str, ...]:
    """The modules that let the step run once they compute in float32 and give back the dtype that came in.

    Code that makes a float32 tensor of its own (a state, a position, a transform without half-precision kernel) and
    multiplies it with what comes in fails in half precision. PEFT's prepare hides that by casting the embeddings, so
    that the whole stream is float32; here only the modules that refuse are.

    Args:
        inner: The model that is traced; it is only read.
        how: What the step is run with.
        refusing: Paths of the modules in which a kernel refused its dtypes.

    Returns:
        Paths in the order in which they were found; empty where the step raises nevertheless.
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
    """The first one and its likes in other layers: what comes after it may refuse only because of it."""
    return [path for path in refusing if fold(path) == fold(refusing[0])]
