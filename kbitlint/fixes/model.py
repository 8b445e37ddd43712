"""Plans fixes, applies them, and checks again until nothing is left to fix; any failure undoes everything.

Imports of ``kbitlint.model.edits`` are inside functions: they load torch, and fixes of scripts import this module.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.audit.options import Norms
from kbitlint.engine import Outcome, needs_trace, run
from kbitlint.errors import KbitlintError
from kbitlint.fixes.norms import with_norms
from kbitlint.model.collect import collect, facts_of_step
from kbitlint.result import Applied
from kbitlint.violation import Edit, Safety, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import TraceFacts
    from kbitlint.rule import Rule

MAX_PASSES = 10
#: kinds of edits that rewrite weights. They are made last and never for a plan, because no other edit depends on them.
REWRITING = frozenset(["pack-experts"])


class FixError(KbitlintError):
    """A fix that does not remove its violation, or fixes that keep undoing each other."""


def fixes_of(violations: Iterable[Violation], wanted: Safety) -> Iterator[tuple[Edit, ...]]:
    """Yield the edits of every fix that is at least as safe as ``wanted``, in the order of the violations."""
    for violation in violations:
        if violation.fix is not None and violation.fix.safety >= max(wanted, Safety.UNSAFE):
            yield violation.fix.edits


def edits_of(violations: Iterable[Violation], wanted: Safety) -> tuple[Edit, ...]:
    """Return the edits of these fixes, each once."""
    return tuple(dict.fromkeys(edit for edits in fixes_of(violations, wanted) for edit in edits))


def held_back(violations: Iterable[Violation], wanted: Safety) -> int:
    """Return how many violations have a fix that is not safe enough to be applied."""
    return sum(1 for v in violations if v.fix is not None and Safety.DISPLAY < v.fix.safety < wanted)


Break = tuple[str, str]
"""(path of a module, operator or error): where a training step raises."""


def breaks(facts: TraceFacts | None) -> frozenset[Break]:
    """Return where a training step raises for any data; an empty set if no step could be run without weights."""
    if facts is None:
        return frozenset()
    refused = {(refusal.path, refusal.operator) for refusal in facts.refusals}
    return frozenset(refused | ({(facts.failed_at, str(facts.failure))} if facts.raises else set()))


def suspects(done: Iterable[Edit], new: Iterable[Break]) -> tuple[Edit, ...]:
    """Return the edits that most likely cause a new break. The caller takes them back, traces again, and asks again.

    If other code reads the dtype of a norm (``x.to(self.norm.weight.dtype)``), an edit of the norm changes what that code
    computes, even if the norm returns the dtype that it receives. Such edits are suspected first, beginning with those in
    the part of the model that breaks. Then follow all edits of a dtype, then all edits.
    """
    done = tuple(done)
    parts = {path.partition(".")[0] for path, _ in new}
    read = tuple(edit for edit in done if edit.arguments.get("output"))
    near = tuple(edit for edit in read if edit.path.partition(".")[0] in parts)
    return near or read or tuple(edit for edit in done if edit.adds_bytes) or done


def fix_model(  # noqa: PLR0913  # each is one decision of the caller
    model: Any,
    rules: Iterable[Rule],
    context: TrainingContext,
    wanted: Safety,
    *,
    trace: bool = True,
    norms: Norms = Norms.TRANSPARENT,
    planning: bool = False,
    optimizer: Any = None,
) -> tuple[Applied, Outcome]:
    """Fix a live model in place and audit it again, at most ten times.

    Violations of attributes are fixed first. Then a step without weights is run, and violations of the trace are fixed.
    Edits that make that step raise are taken back. Edits that rewrite weights are made last, and never for a plan. The
    state that optimizers of this process keep for a parameter follows its dtype. Any exception, Ctrl-C included, leaves
    the model as it was.

    Returns:
        The edits, and the outcome of the last audit.

    Raises:
        FixError: An edit does not remove its violation.
        EditError: The state of an optimizer cannot follow.
    """
    from kbitlint.model.edits import apply as live
    from kbitlint.model.edits.journal import Journal, journaled, keep
    from kbitlint.model.edits.optimizers import Carrier

    def make(edits: list[Edit]) -> None:
        live.apply(model, edits, journal, None if planning else Carrier(journal, model, optimizer))

    rules = tuple(rules)
    done: list[Edit] = []
    taken_back: dict[Edit, None] = {}
    unfixed: frozenset[Break] | None = None
    journal = Journal()
    with journaled(journal):
        for passes in range(MAX_PASSES + 1):
            outcome, facts = _look(model, rules, context, trace=False)
            todo, last = _wished(outcome, wanted, taken_back, facts, norms)
            if trace and not todo:
                outcome, facts = _look(model, rules, context, trace=True)
                todo, last = _wished(outcome, wanted, taken_back, facts, norms)
                broken = breaks(facts.get(Surface.TRACE) or facts_of_step(model, context)) if done else frozenset()
                if broken and unfixed is None:
                    journal.rollback()
                    unfixed = breaks(facts_of_step(model, context))
                    make(done)
                new = broken - (unfixed or frozenset())
                if new:
                    taken_back.update(dict.fromkeys(suspects(done, new)))
                    done = [edit for edit in done if edit not in taken_back]
                    journal.rollback()
                    make(done)
                    continue
            todo = todo or ([] if planning else last)
            if not todo:
                break
            again = [edit for edit in todo if edit in done]
            if again or passes == MAX_PASSES:
                stuck = again[0] if again else todo[0]
                codes = sorted({v.code for v in outcome.violations if v.fix and stuck in v.fix.edits})
                place = stuck.path or "the model"
                raise FixError(
                    f"{', '.join(codes)}: the edit {stuck.kind} of {place} does not remove its violation; "
                    "the model was left as it was"
                )
            make(todo)
            done += todo
    keep(model, journal)
    applied = Applied(
        tuple(done), passes, held_back(outcome.violations, wanted), left_out=tuple(last), taken_back=tuple(taken_back)
    )
    return applied, outcome


def _wished(
    outcome: Outcome, wanted: Safety, taken_back: Collection[Edit], facts: dict[Surface, Any], norms: Norms
) -> tuple[list[Edit], list[Edit]]:
    """Return the edits that are still to be made: (those made first, those that rewrite weights)."""
    edits = with_norms(edits_of(outcome.violations, wanted), norms, facts[Surface.MODEL])
    wished = [edit for edit in edits if edit not in taken_back]
    return [e for e in wished if e.kind not in REWRITING], [e for e in wished if e.kind in REWRITING]


def _look(model: Any, rules: tuple[Rule, ...], context: TrainingContext, *, trace: bool) -> tuple[Outcome, dict[Surface, Any]]:
    facts, skips = collect(model, context, trace=trace and needs_trace(rules))
    outcome = run(rules, facts, context)
    return dataclasses.replace(outcome, skips=tuple(sorted((*outcome.skips, *skips)))), facts


def plan_model(
    model: Any,
    rules: Iterable[Rule],
    context: TrainingContext,
    wanted: Safety,
    *,
    trace: bool = True,
    norms: Norms = Norms.TRANSPARENT,
) -> tuple[Edit, ...]:
    """Return every edit that ``fix_model`` would make, with those that only show after others.

    The edits are made and undone at once, so the model is left as it was. Edits that rewrite weights are not made.
    """
    from kbitlint.model.edits.journal import undo_last

    applied, _ = fix_model(model, rules, context, wanted, trace=trace, norms=norms, planning=True)
    if applied.edits:
        undo_last(model)
    return (*applied.edits, *applied.left_out)
