"""Audits an open target: collects its facts, runs the rules over them, and makes the report.

Imports of ``kbitlint.model`` are inside functions: they load torch, and audits of scripts and files need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint import engine
from kbitlint.audit.options import is_left_out
from kbitlint.audit.sources import audit_source
from kbitlint.context import TrainingContext
from kbitlint.model.collect import collect
from kbitlint.report import Report, report_of
from kbitlint.result import NOT_RUN, Skip
from kbitlint.target import SOURCES
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.facts.model import ModelFacts
    from kbitlint.result import ModuleOutline
    from kbitlint.rule import Rule


def model_of(live: Any) -> Any:
    """Return the model of a live target: the target itself, or the model that a Trainer holds."""
    from torch import nn

    return live if isinstance(live, nn.Module) else live.model


def context_of(live: Any, context: TrainingContext) -> TrainingContext:
    """Return the context that the launcher, a Trainer's arguments and the wrappers of a model give.

    Fields that the caller sets in ``context`` take precedence.
    """
    from kbitlint.model.inspect.wrappers import context_of_launcher, context_of_wrappers

    model = model_of(live)
    read = TrainingContext() if model is live else TrainingContext.from_trainer(live)
    return context_of_launcher().updated(read).updated(context_of_wrappers(model)).updated(context)


def outline(live: Any, facts: ModelFacts, options: Options) -> tuple[ModuleOutline, ...]:
    """Return the modules of a model for the HTML page; none if the options do not ask for them."""
    if not options.outline:
        return ()
    from kbitlint.model.inspect.outline import outline_of

    return outline_of(model_of(live), facts)


def _run_facts(live: Any, facts: ModelFacts, options: Options) -> dict[Surface, Any]:
    """Return the facts of a Trainer or of a named optimizer, if there are any."""
    from kbitlint.model.inspect.reference import run_facts

    found = run_facts(live, model_of(live), facts, options.optimizer)
    return {} if found is None else {Surface.RANKS: found}


def audit(opened: OpenTarget, rules: tuple[Rule, ...], options: Options) -> Report:
    """Run the rules over all facts of a target and return the report. Fixes are neither planned nor made."""
    target = opened.target
    if target.kind in SOURCES:
        return audit_source(target, rules, options)
    if is_left_out(target, options):
        return Report(target.text, NOT_RUN, skips=(Skip("", Surface.MODEL, "functions are not run (--no-run)"),))
    facts: dict[Surface, Any] = {} if opened.files is None else {Surface.FILES: opened.files}
    context, skips, modules = options.context, opened.skips, tuple["ModuleOutline", ...]()
    if opened.live is not None:
        context = context_of(opened.live, context)
        with opened.confined():
            trace = options.trace and engine.needs_trace(rules)
            model = model_of(opened.live)
            seen, further = collect(model, context, trace=trace, trainer=None if model is opened.live else opened.live)
            facts, skips = {**facts, **seen}, (*skips, *further)
            facts |= _run_facts(opened.live, seen[Surface.MODEL], options)
            modules = outline(opened.live, seen[Surface.MODEL], options)
    outcome = engine.run(rules, facts, context)
    walked, step = facts.get(Surface.MODEL), facts.get(Surface.TRACE)
    return report_of(target.text, walked, outcome, step, notes=opened.notes, skips=skips, outline=modules)
