"""Engine: runs rules over facts. It does no input or output, imports no torch and names no rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kbitlint.errors import one_line
from kbitlint.lazy_dataclass import dataclass
from kbitlint.result import Crash, Skip
from kbitlint.rule import Rule, Unchecked, Unstated
from kbitlint.runtime.confinement import lifted
from kbitlint.violation import Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.context import TrainingContext


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of all rules on one set of facts. The caller builds a Report from it."""

    violations: tuple[Violation, ...]
    skips: tuple[Skip, ...]
    crashes: tuple[Crash, ...]
    ran: tuple[tuple[str, Surface], ...]


NOTHING = Outcome((), (), (), ())

Facts = Mapping[Surface, Any]
"""The collected facts by surface. A surface that the target does not offer is absent."""


def run(rules: Iterable[Rule], facts: Facts, context: TrainingContext) -> Outcome:
    """Run every check for which there are facts, and return the outcome.

    If a rule raises an exception, record a Crash and run the other rules. If a rule ran on both the model and its
    trace, keep the violations of the trace only.
    """
    violations: list[Violation] = []
    skips: list[Skip] = []
    crashes: list[Crash] = []
    ran: list[tuple[str, Surface]] = []
    for rule in rules:
        by_surface: dict[Surface, list[Violation]] = {}
        for surface, check in rule.checks().items():
            if surface not in facts:
                continue
            try:
                _require_strategy(rule, surface, context)
                with lifted():  # rules are code that the user installed
                    found = list(check(rule, facts[surface], context))
            except Unchecked as reason:
                skips.append(Skip(rule.meta.code, surface, str(reason), unstated=isinstance(reason, Unstated)))
            except Exception as error:  # noqa: BLE001  # a broken rule pack must not hide the other verdicts
                import traceback  # only a crash needs it

                crashes.append(Crash(rule.meta.code, surface, one_line(error), traceback.format_exc()))
            else:
                by_surface[surface] = found
                ran.append((rule.meta.code, surface))
        if Surface.TRACE in by_surface:
            by_surface.pop(Surface.MODEL, None)
        for found in by_surface.values():
            violations += found
    return Outcome(
        tuple(sorted(violations, key=lambda violation: violation.sort_key)),
        tuple(sorted(skips)),
        tuple(sorted(crashes)),
        tuple(sorted(ran, key=lambda pair: (pair[0], pair[1].value))),
    )


def needs_trace(rules: Iterable[Rule]) -> bool:
    """Return whether a rule checks the trace, so that a training step without weights has to be run."""
    return any(Surface.TRACE in rule.checks() for rule in rules)


def needs_model(rules: Iterable[Rule]) -> bool:
    """Return whether a rule checks a model, so that a named target has to be built."""
    return any({Surface.MODEL, Surface.TRACE, Surface.RANKS} & set(rule.checks()) for rule in rules)


def _require_strategy(rule: Rule, surface: Surface, context: TrainingContext) -> None:
    """Raise Unstated if the verdict on a model depends on the strategy and the context has none."""
    if rule.needs_strategy and context.strategy is None and surface in (Surface.MODEL, Surface.TRACE):
        raise Unstated("how ranks share the model is not known (--training)")


def merge(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcomes of several files as one outcome."""
    outcomes = list(outcomes)
    return Outcome(
        tuple(sorted((v for outcome in outcomes for v in outcome.violations), key=lambda v: v.sort_key)),
        tuple(sorted({skip for outcome in outcomes for skip in outcome.skips})),
        tuple(sorted({crash for outcome in outcomes for crash in outcome.crashes})),
        tuple(sorted({pair for outcome in outcomes for pair in outcome.ran}, key=lambda pair: (pair[0], pair[1].value))),
    )
