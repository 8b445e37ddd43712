"""Runs the rules over what a target offers, and makes the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint import engine
from kbitlint.collection import facts_of_model
from kbitlint.context import TrainingContext
from kbitlint.violation import Plan, Report, Safety, Surface

if TYPE_CHECKING:
    from kbitlint.opening import Opened, Options
    from kbitlint.rule import Rule


def model_of(target: Any) -> Any:
    """The model of a live target: itself, or the one that a Trainer holds."""
    from torch import nn

    return target if isinstance(target, nn.Module) else target.model


def context_of(target: Any, context: TrainingContext) -> TrainingContext:
    """What a Trainer's arguments and the wrappers of a model say; what the caller says wins."""
    from kbitlint.model.wrapped import context_of_wrappers

    model = model_of(target)
    read = TrainingContext() if model is target else TrainingContext.from_trainer(target)
    return read.updated(context_of_wrappers(model)).updated(context)


def report_of(name: str, facts: Any, outcome: engine.Outcome, trace: Any = None, **further: Any) -> Report:
    """The report of one audit.

    Args:
        name: The target.
        facts: What the walk saw; None where no model was looked at.
        outcome: What the rules gave.
        trace: What a step without weights showed; None where none was run.
        **further: Further fields of the report.
    """
    return Report(
        target=name,
        summary=facts.summary() if facts is not None else "",
        violations=outcome.violations,
        skips=(*outcome.skips, *further.pop("skips", ())),
        crashes=outcome.crashes,
        ran=outcome.ran,
        trace_seconds=trace.seconds if trace is not None else None,
        weights_read=facts is not None and not facts.on_meta,
        **further,
    )


def audit(opened: Opened, rules: tuple[Rule, ...], options: Options) -> Report:
    """Run the rules over everything that a named target offers."""
    facts: dict[Surface, Any] = {}
    if opened.files is not None:
        facts[Surface.FILES] = opened.files
    context, model = options.context, None
    skips = opened.skips
    if opened.live is not None:
        context = context_of(opened.live, context)
        seen, further = facts_of_model(model_of(opened.live), rules, context, trace=options.trace)
        facts, skips, model = {**facts, **seen}, (*skips, *further), seen[Surface.MODEL]
    outcome = engine.run(rules, facts, context)
    planned = None
    if options.plan and opened.live is not None:
        planned = plan_of(model_of(opened.live), rules, context, trace=options.trace)
    return report_of(
        opened.target.text, model, outcome, facts.get(Surface.TRACE), notes=opened.notes, skips=skips, planned=planned
    )


def plan_of(model: Any, rules: tuple[Rule, ...], context: TrainingContext, *, trace: bool) -> Plan:
    """What ``--fix`` would do to a model, and what ``--unsafe-fixes`` would add."""
    from kbitlint.fixer import plan_model

    safe = plan_model(model, rules, context, Safety.SAFE, trace=trace)
    everything = plan_model(model, rules, context, Safety.UNSAFE, trace=trace)
    return Plan(safe, tuple(edit for edit in everything if edit not in safe))
