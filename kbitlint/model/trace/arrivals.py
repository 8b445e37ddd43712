"""The facts of the parameters after a traced step: which gradients arrived, who lost the others, and which dtypes changed."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.facts.layers import short_name
from kbitlint.facts.trace import Cut, GradientFacts
from kbitlint.model.trace.gradients import why_cut
from kbitlint.model.trace.zeros import parted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.model import ModelFacts
    from kbitlint.model.trace.recorder import ExpectedGradient, StepRecorder

#: Folders of installed libraries.
_INSTALLED = frozenset(["site-packages", "dist-packages"])


def recast_of(watched: list[ExpectedGradient], facts: ModelFacts) -> Iterator[tuple[str, str, str]]:
    """Yield (path, dtype before, dtype after) of each parameter whose dtype the step changed."""
    before = {parameter.path: parameter.dtype for parameter in facts.trainable}
    for one in watched:
        had, has = before.get(one.path), short_name(one.parameter.dtype)
        if had not in (None, has) and not one.virtual:
            yield one.path, str(had), has


def gradients_of(step: StepRecorder, watched: list[ExpectedGradient]) -> Iterator[GradientFacts]:
    """Yield the facts of each parameter that should receive a gradient."""
    ledger = step.ledger
    for one in watched:
        if one.parameter.grad is not None:
            at, operator = parted(cause := ledger.zeros.cause(one.parameter.grad))
            at = at or ("the model" if cause else "")
            arrived = GradientFacts(one.path, arrives=True, adapter=one.adapter, virtual=one.virtual)
            yield dataclasses.replace(arrived, zeroed_by=at, zeroing=operator) if at else arrived
            continue
        key = id(one.parameter)
        used, without = ledger.used.get(key), ledger.used_without_grad.get(key)
        # no operator reads the scalar, so the record of its layer decides
        if one.virtual and one.owner in step.passage.gives_grad:
            recorded = one.owner not in step.passage.entered_without_grad
            used, without = (one.owner, None) if recorded else (None, one.owner)
        cut, at = why_cut(one.parameter, one.owner, step.passage, used, without, ledger.detached)
        at = _adapted_layer(step, at)
        yield GradientFacts(one.path, arrives=False, adapter=one.adapter, virtual=one.virtual, cut=cut, at=at)


def _class_at(step: StepRecorder, path: str) -> str:
    """Return the name of the Python module that defines the class at a path."""
    return str(type(step.modules.get(path)).__module__)


def _adapted_layer(step: StepRecorder, path: str) -> str:
    """Return the layer that holds the adapter in which a path lies. If the path lies in no adapter, return the path."""
    around = [path.rsplit(".", count)[0] for count in range(path.count(".") + 1)]
    return next((place for place in reversed(around) if _class_at(step, place).startswith("peft.")), path)


def is_library_code(step: StepRecorder, gradient: GradientFacts) -> bool:
    """Return whether the class that cuts a gradient belongs to an installed library or to a checkpoint's remote code.

    A module that runs under ``torch.no_grad`` is called so by its parent, so the search starts at the parent.
    """
    path = gradient.at.rpartition(".")[0] if gradient.cut is Cut.NO_GRAD else gradient.at
    while path and _class_at(step, path).split(".")[0] in ("torch", "peft", "bitsandbytes", "builtins"):
        path = path.rpartition(".")[0]
    around = type(step.twin).__module__  # a user's own module has no path, as paths start at the base
    if not path and around.split(".")[0] not in ("torch", "peft"):
        return _is_installed(around)
    return _is_installed(_class_at(step, path))


def _is_installed(module: str) -> bool:
    """Return whether a Python module belongs to an installed library, or to a checkpoint's remote code."""
    source = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    return module.partition(".")[0] in ("transformers", "transformers_modules") or bool(_INSTALLED.intersection(source.parts))
