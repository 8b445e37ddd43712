"""Runs the rules over what a target offers, and makes the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint import engine
from kbitlint.collection import facts_of_model
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError, TargetError
from kbitlint.norm_styles import Norms
from kbitlint.report import Report, report_of
from kbitlint.result import Plan, Skip
from kbitlint.source import documents
from kbitlint.target import SOURCES, Kind, Target
from kbitlint.violation import Safety, Surface

if TYPE_CHECKING:
    from kbitlint.model.facts import ModelFacts
    from kbitlint.opening import Opened, Options
    from kbitlint.rule import Rule


def model_of(target: Any) -> Any:
    """The model of a live target: itself, or the one that a Trainer holds."""
    from torch import nn

    return target if isinstance(target, nn.Module) else target.model


def context_of(target: Any, context: TrainingContext) -> TrainingContext:
    """What a Trainer's arguments and the wrappers of a model say; what the caller says wins."""
    from kbitlint.model.wrapped import context_of_launcher, context_of_wrappers

    model = model_of(target)
    read = TrainingContext() if model is target else TrainingContext.from_trainer(target)
    return context_of_launcher().updated(read).updated(context_of_wrappers(model)).updated(context)


def depicted(live: Any, facts: ModelFacts, context: TrainingContext, options: Options) -> dict[str, Any]:
    """What a page shows of a model, as fields of its report: nothing where nobody asked for it."""
    further: dict[str, Any] = {}
    if options.outline:
        from kbitlint.model.outline import outline_of

        further["outline"] = outline_of(model_of(live), facts)
    if options.memory:
        further |= measured(live, context, options)
    return further


def measured(live: Any, context: TrainingContext, options: Options) -> dict[str, Any]:
    """What a training step takes before and after the fix, or why that is not known, as fields of a report."""
    from kbitlint.budget import DEFAULT_LORA, OPTIMIZERS, budget_of, parse_lora
    from kbitlint.model.isolation import quiet

    if not options.trace:
        return {"unmeasured": "no training step may be run (--no-trace)"}
    optimizer = context.optimizer if context.optimizer in OPTIMIZERS else "adamw"
    lora = parse_lora(DEFAULT_LORA)
    try:
        with quiet():
            budget = budget_of(model_of(live), context, lora=lora, optimizer=optimizer, against_peft=False)
    except KbitlintError as error:
        return {"unmeasured": str(error)}
    return {"memory": budget}


def audit(opened: Opened, rules: tuple[Rule, ...], options: Options) -> Report:
    """Run the rules over everything that a named target offers."""
    if opened.target.kind in SOURCES:
        return _audit_source(opened.target, rules, options)
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
            picture = depicted(opened.live, model, context, options)
    outcome = engine.run(rules, facts, context)
    planned = None
    if options.plan and opened.live is not None:
        with opened.confined():
            planned = plan_of(model_of(opened.live), rules, context, trace=options.trace, norms=options.norms)
    if options.plan and opened.files is not None:
        planned = _with_files(planned, opened.target, rules, options)
    step = facts.get(Surface.TRACE)
    return report_of(opened.target.text, model, outcome, step, notes=opened.notes, skips=skips, planned=planned, **picture)


def _audit_source(target: Target, rules: tuple[Rule, ...], options: Options) -> Report:
    """Audit a script or a folder of them: no model is built and nothing of the script runs."""
    from kbitlint import sweep

    path = Path(target.place)
    if target.kind is Kind.TREE:
        swept = sweep.sweep(path, rules, options.context)
        if not swept.files:
            raise TargetError(target.text, "the folder holds no checkpoint, script, notebook or training configuration")
        counted = f"{swept.read} of {swept.files} files" if swept.files > 1 else "1 file"
        summary = f"{counted} {'concerns' if swept.read == 1 else 'concern'} the training of quantized models"
    else:
        document = documents.read(path, target.text)
        swept = sweep.Sweep(sweep.NOTHING, 1)
        summary = ""
        if document is not None:
            outcome, silenced = sweep.run(rules, document.facts, options.context)
            swept = sweep.Sweep(outcome, 1, 1, silenced=silenced)
    skips = swept.skips
    if not swept.read and not skips:
        skips = (Skip("", Surface.SOURCE, "nothing here loads, prepares or trains a quantized model"),)
    notes = (f"{swept.silenced} silenced by comments",) if swept.silenced else ()
    report = report_of(target.text, None, swept.outcome, notes=notes, skips=skips)
    planned = _plan_of_source(target, rules, options) if options.plan else None
    return dataclasses.replace(report, summary=summary, planned=planned)


def _with_files(planned: Plan | None, target: Target, rules: tuple[Rule, ...], options: Options) -> Plan:
    """The plan with what fixes change in the JSON files."""
    from kbitlint.mending import mend_files

    safe = mend_files(target, rules, options.context, Safety.SAFE)
    everything = mend_files(target, rules, options.context, Safety.UNSAFE)
    diff, unsafe = ("\n".join(file.diff() for file in files) for files in (safe, everything))
    edits = tuple(edit for file in safe for edit in file.edits)
    further = tuple(edit for file in everything for edit in file.edits if edit not in edits)
    model = planned or Plan((), ())
    return dataclasses.replace(
        model,
        safe=(*edits, *model.safe),
        unsafe=(*further, *model.unsafe),
        diff=diff,
        unsafe_diff=unsafe if unsafe != diff else "",
    )


def _plan_of_source(target: Target, rules: tuple[Rule, ...], options: Options) -> Plan:
    from kbitlint.mending import mend_target

    safe = mend_target(target, rules, options.context, Safety.SAFE)
    everything = mend_target(target, rules, options.context, Safety.UNSAFE)
    edits = tuple(edit for file in safe for edit in file.edits)
    further = tuple(edit for file in everything for edit in file.edits if edit not in edits)
    diff = "\n".join(filter(None, (file.diff() for file in safe)))
    unsafe = "\n".join(filter(None, (file.diff() for file in everything)))
    return Plan(edits, further, diff, unsafe_diff=unsafe if unsafe != diff else "")


def plan_of(
    model: Any, rules: tuple[Rule, ...], context: TrainingContext, *, trace: bool, norms: Norms = Norms.TRANSPARENT
) -> Plan:
    """What ``--fix`` would do to a model, and what ``--unsafe-fixes`` would add."""
    from kbitlint.fixer import plan_model

    safe = plan_model(model, rules, context, Safety.SAFE, trace=trace, norms=norms)
    everything = plan_model(model, rules, context, Safety.UNSAFE, trace=trace, norms=norms)
    further = tuple(edit for edit in everything if edit not in safe)
    return Plan(safe, further, spared=tuple(edit for edit in safe if edit not in everything))
