"""A preview of a fix: its plan, and the memory of a step before and after it. Nothing stays changed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.audit.options import DEFAULT_LORA
from kbitlint.audit.run import context_of, model_of
from kbitlint.errors import KbitlintError
from kbitlint.fixes.budget import budget_of, plan_of
from kbitlint.fixes.files import mend_files, mend_target
from kbitlint.fixes.lora import parse_lora
from kbitlint.fixes.model import plan_model
from kbitlint.result import Plan
from kbitlint.target import SOURCES
from kbitlint.violation import Safety

if TYPE_CHECKING:
    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext
    from kbitlint.fixes.files import FixedFile
    from kbitlint.report import Report
    from kbitlint.rule import Rule


def preview(report: Report, opened: OpenTarget, rules: tuple[Rule, ...], options: Options) -> Report:
    """Return the report of an audit with the plan and the memory of a step, as far as the options ask for them.

    Args:
        report: The report of ``audit``.
        opened: The target that was audited; a live model is left as it was.
        rules: The rules whose fixes are planned.
        options: ``plan`` and ``memory`` choose what is added.
    """
    if options.plan:
        report = dataclasses.replace(report, planned=_plan_of(opened, rules, options))
    if options.memory and opened.live is not None:
        with opened.confined():
            fields = memory_fields(opened.live, context_of(opened.live, options.context), options)
        report = dataclasses.replace(report, **fields)
    return report


def memory_fields(live: Any, context: TrainingContext, options: Options) -> dict[str, Any]:
    """Return the memory of a step before and after the fix, or why it is not known, as fields of a report."""
    from kbitlint.model.isolation import quiet  # imports torch

    if not options.trace:
        return {"unmeasured": "no training step may be run (--no-trace)"}
    plan = plan_of(context, None, None, None, None, None)
    lora = parse_lora(DEFAULT_LORA)
    try:
        with quiet():
            budget = budget_of(model_of(live), context, lora=lora, plan=plan, against_peft=False)
    except KbitlintError as error:
        return {"unmeasured": str(error)}
    return {"memory": budget}


def _plan_of(opened: OpenTarget, rules: tuple[Rule, ...], options: Options) -> Plan | None:
    """Return the plan for all that a target offers; None if no fix can change it."""
    if opened.target.kind in SOURCES:
        return _plan_of_source(opened, rules, options)
    planned = None
    if opened.live is not None:
        with opened.confined():
            planned = _plan_of_model(opened.live, rules, options)
    return planned if opened.files is None else _with_files(planned, opened, rules, options)


def _plan_of_model(live: Any, rules: tuple[Rule, ...], options: Options) -> Plan:
    model, context = model_of(live), context_of(live, options.context)
    safe, everything = (
        plan_model(model, rules, context, wanted, trace=options.trace, norms=options.norms)
        for wanted in (Safety.SAFE, Safety.UNSAFE)
    )
    further = tuple(edit for edit in everything if edit not in safe)
    return Plan(safe, further, spared=tuple(edit for edit in safe if edit not in everything))


def _with_files(planned: Plan | None, opened: OpenTarget, rules: tuple[Rule, ...], options: Options) -> Plan:
    """Return the plan of a model with the changes to the JSON files of its folder, which come first."""
    safe, everything = (mend_files(opened.target, rules, options.context, wanted) for wanted in (Safety.SAFE, Safety.UNSAFE))
    files, model = _plan_of_files(safe, everything), planned or Plan((), ())
    return dataclasses.replace(files, safe=files.safe + model.safe, unsafe=files.unsafe + model.unsafe, spared=model.spared)


def _plan_of_source(opened: OpenTarget, rules: tuple[Rule, ...], options: Options) -> Plan:
    safe, everything = (mend_target(opened.target, rules, options.context, wanted) for wanted in (Safety.SAFE, Safety.UNSAFE))
    return _plan_of_files(safe, everything)


def _plan_of_files(safe: list[FixedFile], everything: list[FixedFile]) -> Plan:
    """Return the plan that changes files to the first list safely, and to the second with unsafe fixes too."""
    edits = tuple(edit for file in safe for edit in file.edits)
    further = tuple(edit for file in everything for edit in file.edits if edit not in edits)
    diff, unsafe = ("\n".join(filter(None, (file.diff() for file in files))) for files in (safe, everything))
    return Plan(edits, further, diff, unsafe_diff=unsafe if unsafe != diff else "")
