"""Runs the rules over what a target offers, and makes the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint import engine
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError
from kbitlint.model.collect import facts_of_model
from kbitlint.report import Report, report_of
from kbitlint.result import Skip
from kbitlint.target import SOURCES
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.facts.model import ModelFacts
    from kbitlint.rule import Rule


def model_of(target: Any) -> Any:
    """The model of a live target: itself, or the one that a Trainer holds."""
    from torch import nn

    return target if isinstance(target, nn.Module) else target.model


def context_of(target: Any, context: TrainingContext) -> TrainingContext:
    """What a Trainer's arguments and the wrappers of a model say; what the caller says wins."""
    from kbitlint.model.inspect.wrappers import context_of_launcher, context_of_wrappers

    model = model_of(target)
    read = TrainingContext() if model is target else TrainingContext.from_trainer(target)
    return context_of_launcher().updated(read).updated(context_of_wrappers(model)).updated(context)


def outline_fields(live: Any, facts: ModelFacts, context: TrainingContext, options: Options) -> dict[str, Any]:
    """What a page shows of a model, as fields of its report: nothing where nobody asked for it."""
    further: dict[str, Any] = {}
    if options.outline:
        from kbitlint.model.inspect.outline import outline_of

        further["outline"] = outline_of(model_of(live), facts)
    if options.memory:
        from kbitlint.fixes.preview import memory_fields

        further |= memory_fields(live, context, options)
    return further


def audit(opened: OpenTarget, rules: tuple[Rule, ...], options: Options) -> Report:
    """Run the rules over everything that a named target offers."""
    if opened.target.kind in SOURCES:
        from kbitlint.audit.scripts import audit_source

        return audit_source(opened.target, rules, options)
    facts: dict[Surface, Any] = {}
    if opened.files is not None:
        facts[Surface.FILES] = opened.files
    context, model = options.context, None
    skips, picture = opened.skips, dict[str, Any]()
    if opened.live is not None:
        context = context_of(opened.live, context)
        with opened.confined():
            seen, further = facts_of_model(model_of(opened.live), rules, context, trace=options.trace)
            facts, skips, model = {**facts, **seen}, (*skips, *further), seen[Surface.MODEL]
            picture = outline_fields(opened.live, model, context, options)
    outcome = engine.run(rules, facts, context)
    planned = None
    if options.plan and opened.live is not None:
        with opened.confined():
            from kbitlint.fixes.preview import plan_of

            planned = plan_of(model_of(opened.live), rules, context, trace=options.trace, norms=options.norms)
    if options.plan and opened.files is not None:
        from kbitlint.fixes.preview import with_files

        planned = with_files(planned, opened.target, rules, options)
    step = facts.get(Surface.TRACE)
    return report_of(opened.target.text, model, outcome, step, notes=opened.notes, skips=skips, planned=planned, **picture)


def not_run(target: Any) -> Report:
    """The report of a function that is not run: it is no clean one."""
    return Report(str(target), "not run", skips=(Skip("", Surface.MODEL, "functions are not run (--no-run)"),))


def is_live(target: Any) -> bool:
    """Whether the target is a model or a Trainer, rather than named. Raises KbitlintError where it is neither."""
    if isinstance(target, (str, Path)):
        return False
    if "torch" not in sys.modules:
        raise KbitlintError(f"a {type(target).__name__} is neither a target string nor a model")
    from torch import nn

    from kbitlint.model.build.factory import is_trainer

    if not (isinstance(target, nn.Module) or is_trainer(target)):
        raise KbitlintError(f"a {type(target).__name__} is neither a target string, nor a model, nor a Trainer")
    return True


def check_live(target: Any, rules: tuple[Rule, ...], options: Options) -> Report:
    """Return the report of a live model, or of a Trainer's."""
    model, context = model_of(target), context_of(target, options.context)
    facts, skips = facts_of_model(model, rules, context, trace=options.trace)
    from kbitlint.fixes.preview import plan_of

    planned = plan_of(model, rules, context, trace=options.trace, norms=options.norms) if options.plan else None
    outcome = engine.run(rules, facts, context)
    seen = facts[Surface.MODEL]
    picture = outline_fields(model, seen, context, options)
    return report_of("", seen, outcome, facts.get(Surface.TRACE), skips=skips, planned=planned, **picture)
