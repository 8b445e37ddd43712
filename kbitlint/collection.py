"""Collects the facts of a model, surface by surface: one walk, and one training step without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.result import Skip
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.context import TrainingContext
    from kbitlint.model.trace_facts import TraceFacts
    from kbitlint.rule import Rule


def facts_of_model(
    model: Any, rules: Iterable[Rule], context: TrainingContext, *, trace: bool
) -> tuple[dict[Surface, Any], tuple[Skip, ...]]:
    """What the rules look at on a live or meta model, and what could not be looked at.

    Args:
        model: A ``torch.nn.Module``; it is only read.
        rules: The rules that will run; without a rule on the trace no step is run.
        context: How the model will be trained.
        trace: Whether a step may be run.
    """
    from kbitlint.model.walk import collect

    facts: dict[Surface, Any] = {Surface.MODEL: collect(model)}
    if not trace or not any(Surface.TRACE in rule.checks() for rule in rules):
        return facts, ()
    from kbitlint.model.step import UntraceableError
    from kbitlint.model.trace import trace as traced
    from kbitlint.model.twin import TwinError

    try:
        facts[Surface.TRACE] = traced(model, context, facts=facts[Surface.MODEL])
    except (UntraceableError, TwinError) as reason:
        return facts, (Skip("", Surface.TRACE, str(reason)),)
    return facts, ()


def facts_of_step(model: Any, context: TrainingContext) -> TraceFacts | None:
    """What one training step without weights shows, or None where the model cannot be traced."""
    from kbitlint.model.step import UntraceableError
    from kbitlint.model.trace import trace
    from kbitlint.model.twin import TwinError

    try:
        return trace(model, context)
    except (UntraceableError, TwinError):
        return None
