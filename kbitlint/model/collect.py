"""Collects the facts of a model, surface by surface: one walk, and one training step without weights.

Imports of the walk and the trace are inside functions: they load torch, and audits of scripts import this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, one_line
from kbitlint.result import Skip
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.trace import TraceFacts


def collect(
    model: Any, context: TrainingContext, *, trace: bool, trainer: Any = None
) -> tuple[dict[Surface, Any], tuple[Skip, ...]]:
    """Return the facts of a live or meta model by surface, and a skip for each part that could not be read.

    Args:
        model: A ``torch.nn.Module``; it is only read.
        context: How the model will be trained.
        trace: Whether to run a training step without weights.
        trainer: The Trainer that holds the model, or None.
    """
    from kbitlint.model.inspect import walk
    from kbitlint.model.isolation import uncollected

    with uncollected():
        facts: dict[Surface, Any] = {Surface.MODEL: (seen := walk.collect(model))}
    skips = _unread(seen)
    if not trace:
        return facts, skips
    from kbitlint.model.trace.trace import trace as traced

    try:
        facts[Surface.TRACE] = traced(model, context, facts=seen, trainer=trainer)
    except KbitlintError as reason:
        skips += (Skip("", Surface.TRACE, str(reason)),)
    except Exception as error:  # noqa: BLE001  # a step runs the model's code, which may raise any error
        skips += (Skip("", Surface.TRACE, f"no training step without weights: {one_line(error)}"),)
    return facts, skips


def _unread(facts: ModelFacts) -> tuple[Skip, ...]:
    """Return a Skip for each reason why modules could not be read, with the path of the first one."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in facts.unread:
        by_reason.setdefault(reason, []).append(path or "the model itself")
    return tuple(
        Skip("", Surface.MODEL, f"{paths[0]}{_more(len(paths) - 1)} could not be looked at: {reason}")
        for reason, paths in by_reason.items()
    )


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def facts_of_step(model: Any, context: TrainingContext) -> TraceFacts | None:
    """Return the facts of one training step without weights, or None if the model cannot be traced."""
    from kbitlint.model.trace.trace import trace

    try:
        return trace(model, context)
    except Exception:  # noqa: BLE001  # see collect, which gives the reason
        return None
