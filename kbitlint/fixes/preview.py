"""What a fix would do: its plan, and the memory of a step before and after it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.audit.options import Norms
from kbitlint.audit.run import model_of
from kbitlint.errors import KbitlintError
from kbitlint.result import Plan
from kbitlint.violation import Safety

if TYPE_CHECKING:
    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext
    from kbitlint.rule import Rule
    from kbitlint.target import Target


def memory_fields(live: Any, context: TrainingContext, options: Options) -> dict[str, Any]:
    """What a training step takes before and after the fix, or why that is not known, as fields of a report."""
    from kbitlint.fixes.budget import DEFAULT_LORA, OPTIMIZERS, budget_of, parse_lora
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


def with_files(planned: Plan | None, target: Target, rules: tuple[Rule, ...], options: Options) -> Plan:
    """The plan with what fixes change in the JSON files."""
    from kbitlint.fixes.files import mend_files

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


def plan_of_source(target: Target, rules: tuple[Rule, ...], options: Options) -> Plan:
    """Return the plan for a script, or for a folder of them."""
    from kbitlint.fixes.files import mend_target

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
    from kbitlint.fixes.model import plan_model

    safe = plan_model(model, rules, context, Safety.SAFE, trace=trace, norms=norms)
    everything = plan_model(model, rules, context, Safety.UNSAFE, trace=trace, norms=norms)
    further = tuple(edit for edit in everything if edit not in safe)
    return Plan(safe, further, spared=tuple(edit for edit in safe if edit not in everything))
