"""One audit over all ranks of a run.

Each rank audits its own model. The ranks exchange and compare the results, and all return the same report.
"""

from __future__ import annotations

import dataclasses
import traceback
from typing import TYPE_CHECKING, Any

from kbitlint import api, engine, registry
from kbitlint.audit.open import open_target, target_of
from kbitlint.audit.options import options_of
from kbitlint.audit.run import audit, context_of, model_of
from kbitlint.audit.turn import turn
from kbitlint.context import TrainingContext
from kbitlint.engine import needs_model
from kbitlint.errors import KbitlintError, one_line
from kbitlint.facts.ranks import RanksFacts, aspects_of, compare, named
from kbitlint.fixes.preview import preview
from kbitlint.integrations.exchange import DEFAULT_TIMEOUT, Group, announce, exchange, group
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import held_to
from kbitlint.report import Report
from kbitlint.result import Crash
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.ranks import Aspects, BatchFacts, OptimizerFacts, ReferenceFacts
    from kbitlint.rule import Rule
    from kbitlint.violation import Violation


@dataclass(frozen=True, slots=True)
class RankAudit:
    """The result of one rank's audit of its own model."""

    report: Report | None
    """None if the audit failed."""
    context: TrainingContext = dataclasses.field(default_factory=TrainingContext)
    facts: ModelFacts | None = None
    """None if the rank audited no model."""
    aspects: Aspects = dataclasses.field(default_factory=dict)
    optimizer: OptimizerFacts | None = None
    """None if there is no optimizer, or if its tensors are shards."""
    reference: ReferenceFacts | None = None
    """None if no Trainer is known, or it has no reference."""
    batch: BatchFacts | None = None
    """None if no Trainer is known, or its data cannot be read ahead."""
    allocates: bool | None = None
    """Whether the Trainer's code allocates the ranks of AdaLoRA; None if no Trainer is known."""
    error: str = ""
    """The reason why there is no report, on one line; empty if there is one."""


@dataclass(frozen=True, slots=True)
class RankReport:
    """The report on which all ranks agree."""

    report: Report
    speaks: bool = True
    """Whether this rank prints the report: it is the lowest rank that answered."""
    ranks: Group | None = None
    """The ranks that agree; None if there is one process."""
    lost: bool = False
    """Whether a rank did not answer: nobody waits for it."""


def check(target: Any, *, timeout: float = DEFAULT_TIMEOUT, **options: Any) -> RankReport:
    """Audit a target on every rank and report once, as ``kbitlint check`` does under torchrun.

    If there is one process, this is ``kbitlint.check``.

    Args:
        target: As for ``kbitlint.check``.
        timeout: Seconds that a rank waits for the others.
        **options: As for ``kbitlint.check``.

    Raises:
        KbitlintError: The ranks cannot be reached. With one process, as for ``kbitlint.check``.
    """
    ranks = group(timeout)
    if ranks is None:
        return RankReport(api.check(target, **options))
    chosen = options_of(options)
    rules = registry.select(chosen.select, chosen.ignore, chosen.rule_options)

    def look() -> RankAudit:
        parsed = target_of(target)  # a rank may lack a file that the others have
        with held_to(chosen.limits), turn(parsed):
            opened = open_target(parsed, chosen, model=needs_model(rules))
            report = preview(audit(opened, rules, chosen), opened, rules, chosen)
            return RankAudit(report, chosen.context) if opened.live is None else seen(opened.live, report, chosen.context)

    return over_ranks(ranks, look, rules, timeout)


def seen(target: Any, report: Report, context: TrainingContext, optimizer: Any = None, trainer: Any = None) -> RankAudit:
    """Return the result of this rank for an audited model, or for the model of a Trainer."""
    from kbitlint.model.inspect.first_batch import first_batch  # imports torch
    from kbitlint.model.inspect.optimizer import adapter_settings, is_sharded, optimizer_facts  # imports torch
    from kbitlint.model.inspect.reference import ALLOCATE, reference_facts  # imports torch
    from kbitlint.model.inspect.trainer_code import calls  # loads what imports torch
    from kbitlint.model.inspect.walk import collect  # imports torch

    model = model_of(target)
    facts = collect(model)
    aspects = aspects_of(facts, adapter_settings(model), sharded=is_sharded(model))
    held = None if optimizer is None else optimizer_facts(model, optimizer)
    read = (reference_facts(trainer, model), first_batch(trainer, model), calls(trainer, ALLOCATE))
    return RankAudit(report, context_of(target, context), facts, aspects, held, *read)


def over_ranks(
    ranks: Group | None, look: Callable[[], RankAudit], rules: Sequence[Rule], timeout: float = DEFAULT_TIMEOUT
) -> RankReport:
    """Run an audit on this rank, exchange the results, and return the report on which all ranks agree.

    Args:
        ranks: The group; None if there is one process.
        look: A function that audits this rank.
        rules: The rules; those on ranks run on the exchanged results.
        timeout: Seconds to wait for the other ranks.

    Raises:
        KbitlintError: There is one process and its audit failed, or the store of the ranks cannot be reached.
    """
    if ranks is None:
        return RankReport(merge_ranks({0: look()}, {}, 1, rules))
    announce(ranks)
    try:
        own = look()
    except KbitlintError as error:
        own = RankAudit(None, error=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001  # the other ranks receive the error and do not wait
        own = RankAudit(None, error=f"{one_line(error)} (in {traceback.extract_tb(error.__traceback__)[-1].name})")
    heard = exchange(ranks, own, timeout)
    report = merge_ranks(heard.records, heard.lost, ranks.world_size, rules)
    return RankReport(report, ranks.rank == min(heard.records), ranks, bool(heard.lost))


def merge_ranks(records: Mapping[int, RankAudit], lost: Mapping[int, str], world_size: int, rules: Sequence[Rule]) -> Report:
    """Return one report of the ranks' results; equal inputs give an equal report on every rank.

    Args:
        records: The result of each rank that answered.
        lost: The last known state of each rank that did not answer.
        world_size: The number of ranks.
        rules: The rules; those on ranks run here.
    """
    ordered = dict(sorted(records.items()))
    crashes = [Crash("", Surface.RANKS, f"{named((rank,))}: {seen.error}") for rank, seen in ordered.items() if seen.error]
    crashes += [Crash("", Surface.RANKS, f"{named((rank,))} did not answer: {why}") for rank, why in sorted(lost.items())]
    reports = {rank: record.report for rank, record in ordered.items() if record.report is not None}
    if not reports:
        return Report("", crashes=tuple(crashes))
    first = next(iter(reports.values()))
    skips = (
        first.skips
    )  # with several ranks, the run is of the kind that these rules are about, so every report lists their skips
    if world_size > 1:
        skips = tuple(dataclasses.replace(skip, unstated=False) for skip in skips)
    outcome = engine.Outcome(tuple(_merged(reports)), skips, first.crashes, first.ran)
    known = [(rank, record, record.facts) for rank, record in ordered.items() if record.facts is not None]
    if known:
        _, lowest, facts = known[0]
        divergences = compare({rank: record.aspects for rank, record, _ in known})
        told = (lowest.optimizer, lowest.reference, lowest.batch, lowest.allocates)
        ranked = RanksFacts(world_size, facts, divergences, *told)
        seen_here = engine.run(rules, {Surface.RANKS: ranked}, lowest.context)
        # the audit of a Trainer has run these rules on its own run already
        alone = tuple(one for one in outcome.violations if one not in seen_here.violations)
        outcome = engine.merge((dataclasses.replace(outcome, violations=alone), seen_here))
    notes = (*first.notes, f"audited on {len(reports)} of {world_size} ranks") if world_size > 1 else first.notes
    return dataclasses.replace(
        first,
        violations=outcome.violations,
        skips=outcome.skips,
        crashes=(*outcome.crashes, *crashes),
        ran=outcome.ran,
        notes=notes,
    )


def _merged(reports: dict[int, Report]) -> Iterable[Violation]:
    """Yield the violations that all ranks have once, and those of some ranks with these ranks in the message."""
    by_violation: dict[str, tuple[Violation, list[int]]] = {}
    for rank, report in reports.items():
        for violation in report.violations:
            by_violation.setdefault(repr(violation), (violation, []))[1].append(rank)
    for violation, which in by_violation.values():
        if len(which) == len(reports):
            yield violation
        else:
            yield dataclasses.replace(
                violation,
                message=f"{violation.message} (on {named(tuple(which))} only)",
                evidence={**violation.evidence, "ranks": which},
            )
