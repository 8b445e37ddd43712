"""The reports of a rehearsal: what the script raised, what each training showed, and what reading the file shows."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint import engine
from kbitlint.audit.sources import audit_source
from kbitlint.errors import TargetError
from kbitlint.facts.rehearsal import Phase, Raised, RehearsalFacts, Stall
from kbitlint.rehearsal.messages import Kind
from kbitlint.report import Report, report_of
from kbitlint.result import Skip
from kbitlint.runtime import content
from kbitlint.target import parse
from kbitlint.violation import Consequence, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.audit.options import Options
    from kbitlint.rehearsal.command import Command
    from kbitlint.rehearsal.messages import Received
    from kbitlint.rule import Rule


def reports_of(received: Received, command: Command, rules: tuple[Rule, ...], options: Options) -> tuple[Report, ...]:
    """Return a report for each training that the script reached, or one if it reached none.

    The first one also holds what concerns the whole script.
    """
    raised = received.raised or _left(received, command) or _raised_elsewhere(received, command)
    batches = tuple(one.batch for one in received.trainings if one.batch is not None)
    facts = RehearsalFacts(
        command.script, len(received.trainings), raised, batches, _stalls(received) if raised is None else ()
    )
    outcome = engine.run(rules, {Surface.REHEARSAL: facts}, options.context)
    skips = [*received.skips, *_skips_elsewhere(received)]
    if received.unfinished:
        skips.append(Skip("", Surface.REHEARSAL, f"not rehearsed to its end: {received.unfinished}"))
    elif not received.trainings and raised is None and not received.skips and not facts.stalls:
        skips.append(Skip("", Surface.REHEARSAL, "the script ended without a training step"))
    static = None if command.is_module else _read(command, rules, options)
    if static is not None and raised is None:
        static = _proved(static, [one.report for one in received.trainings])
    rehearsed = report_of(command.text, None, outcome, notes=tuple(_notes(received)), skips=tuple(skips))
    reports = [_without(one.report, rehearsed.violations) for one in received.trainings]
    first = _merged(rehearsed, static, reports[0] if reports else None, command)
    further = [
        dataclasses.replace(report, target=f"{command.text}, training {number}", notes=(f"started at line {one.line}",))
        for number, (report, one) in enumerate(zip(reports[1:], received.trainings[1:], strict=False), 2)
    ]
    return (first, *further)


#: the last line of argparse and of click: ``train.py: error: unrecognized arguments: --x``, ``Error: No such option``
_ERROR = re.compile(r"(\S+: )?error: ", re.IGNORECASE)


def _left(received: Received, command: Command) -> Raised | None:
    """Return an exit status as what the script raised; None if it left with none."""
    if received.exit is None:
        return None
    lines = [line.strip() for line in received.output.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if _ERROR.match(line)), "")
    start = _ERROR.match(last)
    if received.exit.status == 2 and not received.trainings and any(line.startswith("usage:") for line in lines):
        why = last[start.end() :] if start else "its arguments are wrong"
        raise TargetError(command.script, f"takes other arguments: {why}; give them after the script")
    phase = Phase.AFTER if received.trainings else Phase.BEFORE
    message = f"exit status {received.exit.status}" + (f": {last}" if last else "")
    return Raised("SystemExit", message, command.script, received.exit.line, "<module>", "sys.exit", phase)


def _raised_elsewhere(received: Received, command: Command) -> Raised | None:
    """Return what the lowest rank raised that raised anything."""
    for rank, sent in sorted(received.ranks.items()):
        raised = sent.raised or _left(sent, command)
        if raised is not None:
            return dataclasses.replace(raised, rank=rank)
    return None


def _stalls(received: Received) -> tuple[Stall, ...]:
    """Return where ranks waited for others in vain, each place once: several ranks at a line are one stall.

    A rank that could not be rehearsed to its end is waited for in a rehearsal only.
    """
    every = {0: received, **received.ranks}
    ended = {rank for rank, sent in every.items() if sent.whole}
    found = [one for _, sent in sorted(every.items()) for one in sent.stalls if not one.waits or ended - {one.rank}]
    return tuple({(stall.file, stall.line, stall.meanwhile): stall for stall in reversed(found)}.values())[::-1]


def _skips_elsewhere(received: Received) -> Iterable[Skip]:
    """Yield the skips of further ranks that rank 0 does not have."""
    known = set(received.skips)
    for rank, sent in sorted(received.ranks.items()):
        for skip in sent.skips:
            if skip not in known:
                known.add(skip)
                yield dataclasses.replace(skip, reason=f"rank {rank}: {skip.reason}")


def _notes(received: Received) -> Iterable[str]:
    lines = " and ".join(f"line {one.line}" for one in received.trainings if one.line)
    if received.trainings:
        yield f"training reached at {lines}" if lines else "training reached"
    else:
        yield "no training reached"
    yield from notes_of(received)


def notes_of(received: Received) -> Iterable[str]:
    """Yield what a rehearsal remarks, one line for all notes of a kind."""
    yield from (note.text for note in received.notes if note.kind is Kind.OTHER)
    for kind in (Kind.STOOD_IN, Kind.OFF):
        named = [note.text for note in received.notes if note.kind is kind]
        if named:
            yield f"{kind.value}: {'; '.join(named)}"


def _read(command: Command, rules: tuple[Rule, ...], options: Options) -> Report | None:
    """Return the audit of the script's text; None if it cannot be read as a script."""
    try:
        return audit_source(parse(command.script), rules, options)
    except TargetError:
        return None


def _merged(rehearsed: Report, static: Report | None, live: Report | None, command: Command) -> Report:
    """Return one report of the three. A cause that the text shows keeps its line, and is not shown again for the model."""
    read = list(static.violations) if static else []
    raised = list(rehearsed.violations)
    for violation in list(raised):
        known = _same_cause(violation, read, command) if violation.evidence.get("raised") else None
        if known is None:
            continue
        if _names_other(known, violation):
            read.remove(known)  # the statement ends otherwise, and before what the text alone suggests
        else:
            raised.remove(violation)
            read[read.index(known)] = _with_proof(known, violation)
    read = [_as_traced(one, live.violations if live else ()) for one in read if not _is_shown(one, read, raised)]
    codes = {violation.code for violation in read}
    shown = [violation for violation in (live.violations if live else ()) if violation.code not in codes]
    parts = [one for one in (rehearsed, static, live) if one is not None]
    static_skips = [skip for skip in static.skips if "nothing here loads" not in skip.reason] if static else []
    skips = {*rehearsed.skips, *static_skips, *(live.skips if live else ())}
    ran = {pair for one in parts for pair in one.ran}
    return dataclasses.replace(
        live or rehearsed,
        target=rehearsed.target,
        violations=tuple(sorted((*raised, *read, *shown), key=lambda one: one.sort_key)),
        skips=tuple(sorted(skip for skip in skips if not (skip.code and (skip.code, skip.surface) in ran))),
        crashes=tuple(sorted(crash for one in parts for crash in one.crashes)),
        ran=tuple(sorted(ran, key=lambda pair: (pair[0], pair[1].value))),
        notes=(*rehearsed.notes, *(live.notes if live else ()), *(static.notes if static else ())),
    )


def _is_shown(one: Violation, read: list[Violation], raised: list[Violation]) -> bool:
    """Return whether the rehearsal itself shows a violation of the text, by the same rule and as often."""
    same = [other for other in raised if other.code == one.code]
    return len(same) >= sum(other.code == one.code for other in read)


def _as_traced(one: Violation, live: Iterable[Violation]) -> Violation:
    """Return a violation of the text, which fails if the traced step shows that it does."""
    fails = any(other.code == one.code and other.consequence is Consequence.FAILS for other in live)
    return dataclasses.replace(one, consequence=Consequence.FAILS) if fails else one


_LIVE = (Surface.MODEL, Surface.TRACE, Surface.RANKS)
#: rules about data that a model has or lacks: a rehearsed one lacks it everywhere, which disproves nothing
_OF_DATA = frozenset(("KB710",))


def _proved(static: Report, live: list[Report]) -> Report:
    """Return the audit of the text without failures that the same rule, looking at each training itself, does not find."""

    def is_disproved(one: Violation) -> bool:
        return (
            one.consequence is Consequence.FAILS
            and one.code not in _OF_DATA
            and all(
                any((one.code, surface) in report.ran for surface in _LIVE)
                and one.code not in {other.code for other in report.violations}
                for report in live
            )
        )

    kept = tuple(one for one in static.violations if not (live and is_disproved(one)))
    return dataclasses.replace(static, violations=kept)


def _without(report: Report, known: tuple[Violation, ...]) -> Report:
    """Return a training's report without what the rehearsal itself reports of its batch: it has the same evidence."""

    def is_known(one: Violation) -> bool:
        return bool(one.evidence) and any(
            one.evidence.items() <= other.evidence.items() or _lack_rows(one, other) for other in known
        )

    return dataclasses.replace(report, violations=tuple(one for one in report.violations if not is_known(one)))


def _lack_rows(one: Violation, other: Violation) -> bool:
    """Return whether both tell of a token for which the same embedding has no row. Their batches may differ."""
    same = {"token", "rows"} <= one.evidence.keys() & other.evidence.keys()
    return same and one.evidence["rows"] == other.evidence["rows"]


def _same_cause(raised: Violation, read: list[Violation], command: Command) -> Violation | None:
    """Return the violation of the text that is the cause of an exception: it fails, in the same statement."""
    first, last = _statement(command, raised.at.line or 0)
    for one in read:
        if one.consequence is Consequence.FAILS and one.at.file == raised.at.file and first <= (one.at.line or 0) <= last:
            return one
    return None


_CLASS = re.compile(r"raises an? (\w+)")


def _names_other(known: Violation, raised: Violation) -> bool:
    """Return whether a violation of the text names another exception than the one that the statement raises."""
    named = _CLASS.search(known.message)
    return named is not None and named[1] != str(raised.evidence["raised"]).partition(":")[0]


def _with_proof(known: Violation, raised: Violation) -> Violation:
    return dataclasses.replace(
        known,
        message=f"{known.message}; rehearsed, it raises {raised.evidence['raised']}",
        evidence={**known.evidence, **raised.evidence, "at": raised.at.line},
    )


def _statement(command: Command, line: int) -> tuple[int, int]:
    """Return the first and last line of the innermost statement at a line."""
    try:
        tree = ast.parse(content.read(Path(command.script)))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return line, line
    around = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return min(around, key=lambda span: span[1] - span[0], default=(line, line))
