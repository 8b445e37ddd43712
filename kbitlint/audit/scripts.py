"""Audits one source file."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint import engine
from kbitlint.audit.launched import launched
from kbitlint.audit.script_audit import ScriptAudit
from kbitlint.engine import NOTHING
from kbitlint.errors import TargetError
from kbitlint.result import Skip
from kbitlint.source import documents
from kbitlint.source.comments import silencing
from kbitlint.target import CHECKPOINT_FILES, SHELLS
from kbitlint.violation import Fix, Safety, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Ignore
    from kbitlint.rule import Rule
    from kbitlint.source.comments import Found


def run(rules: tuple[Rule, ...], facts: SourceFacts, context: TrainingContext) -> tuple[engine.Outcome, int]:
    """Return the outcome without the violations that a comment silences, and the number of those.

    The comments that silence nothing, or every rule, are facts for a rule.
    """
    facts = launched(facts, context)
    outcome = _run(rules, facts, context)
    if facts.modules:
        outcome = _in_imported_files(outcome, facts)
    if not facts.ignores:
        return outcome, 0
    prefixes = {code[:end] for code, _ in outcome.ran for end in range(1, len(code) + 1)}
    used, silenced = silencing(facts.ignores, map(_found, outcome.violations))
    judged = (
        *(_judged(ignore, silenced) for ignore in facts.ignores if not ignore.names),
        *(ignore for ignore in facts.ignores if ignore not in used and any(name.upper() in prefixes for name in ignore.names)),
    )
    if judged:
        outcome = _run(rules, dataclasses.replace(facts, unused=judged), context)
        outcome = _in_imported_files(outcome, facts) if facts.modules else outcome
        named = (ignore for ignore in facts.ignores if ignore.names)  # a blanket comment does not silence its own report
        silenced |= silencing(named, map(_found, outcome.violations))[1]
    left = tuple(v for v in outcome.violations if _found(v) not in silenced)
    return dataclasses.replace(outcome, violations=left), len(outcome.violations) - len(left)


def _in_imported_files(outcome: engine.Outcome, facts: SourceFacts) -> engine.Outcome:
    """Return the outcome with fixes of the file itself only, and without what comments in the imported files silence."""
    left = []
    for violation in outcome.violations:
        if violation.at.file != facts.file:
            _, silenced = silencing(facts.module_ignores.get(violation.at.file, ()), [_found(violation)])
            if silenced:
                continue
        left.append(_shown_only(violation, facts))
    return dataclasses.replace(outcome, violations=tuple(left))


def _shown_only(violation: Violation, facts: SourceFacts) -> Violation:
    """Return a violation whose fix is shown only if it would change another file."""
    edits = violation.fix.edits if violation.fix is not None else ()
    most = facts.length or 0
    if violation.fix is None or all(int(str(edit.arguments.get("end", 0))) <= most for edit in edits):
        return violation
    return dataclasses.replace(violation, fix=Fix(violation.fix.title, Safety.DISPLAY))


def _judged(ignore: Ignore, silenced: Iterable[Found]) -> Ignore:
    """Return a blanket comment with the codes that it silences."""
    codes = {code for line, code, _ in silenced if line is not None and ignore.first <= line <= ignore.last}
    return dataclasses.replace(ignore, silences=tuple(sorted(codes)))


def _run(rules: tuple[Rule, ...], facts: SourceFacts, context: TrainingContext) -> engine.Outcome:
    """Return the outcome of the rules, with a skip if the file was not followed to its end."""
    unjudged = bool(facts.unfollowed) and not facts.paths and not facts.calls and facts.dialect != "python"
    outcome = NOTHING if unjudged else engine.run(rules, {Surface.SOURCE: facts}, context)
    if facts.file.endswith(SHELLS):
        outcome = _by_hand(outcome)
    if not facts.unfollowed:
        return outcome
    return dataclasses.replace(outcome, skips=(*outcome.skips, Skip("", Surface.SOURCE, f"{facts.file} {facts.unfollowed}")))


def _by_hand(outcome: engine.Outcome) -> engine.Outcome:
    """Return the outcome with fixes that are display only: edits are in the language of configurations, and not of a shell."""
    shown = tuple(
        v if v.fix is None else dataclasses.replace(v, fix=dataclasses.replace(v.fix, safety=Safety.DISPLAY, edits=()))
        for v in outcome.violations
    )
    return dataclasses.replace(outcome, violations=shown)


def _found(violation: Violation) -> Found:
    return violation.at.line, violation.code, violation.slug


def audit_file(path: Path, name: str, rules: tuple[Rule, ...], context: TrainingContext) -> ScriptAudit:
    """Audit one file of a folder; a file that cannot be read is a skip."""
    if path.name in CHECKPOINT_FILES:
        return _audit_stored(path, name, rules, context)
    try:
        document = documents.read(path, name)
    except TargetError as error:
        problem = str(error).removeprefix(f"{path}: ")
        return ScriptAudit(NOTHING, 1, 0, (Skip("", Surface.SOURCE, f"{name} {problem}"),))
    if document is None:
        return ScriptAudit(NOTHING, 1)
    outcome, silenced = run(rules, document.facts, context)
    return ScriptAudit(outcome, 1, 1, silenced=silenced, decided=frozenset(_decided(document.facts)))


def _decided(facts: SourceFacts) -> Iterable[tuple[str, int | None]]:
    """Yield the place of each call in an imported file after which the file trains the model."""
    for path in facts.paths if facts.modules else ():
        for _, training, steps in path.histories():
            places = (facts.at(step.call) for step in steps if training is not None and facts.is_imported(step.call))
            yield from ((place.file, place.line) for place in places)


def _audit_stored(path: Path, name: str, rules: tuple[Rule, ...], context: TrainingContext) -> ScriptAudit:
    """Audit the config of a checkpoint or adapter in a folder of scripts."""
    from kbitlint.files.checkpoint import read_checkpoint  # only a folder with a checkpoint needs it

    try:
        facts = read_checkpoint(path.parent, path)
    except TargetError as error:
        problem = str(error).removeprefix(f"{path}: ")
        return ScriptAudit(NOTHING, 1, 0, (Skip("", Surface.FILES, f"{name} {problem}"),))
    if facts is None:
        return ScriptAudit(NOTHING, 1)
    outcome = engine.run(rules, {Surface.FILES: facts}, context)
    here = tuple(dataclasses.replace(v, at=dataclasses.replace(v.at, file=name)) for v in outcome.violations)
    return ScriptAudit(dataclasses.replace(outcome, violations=here, skips=()), 1, 1)
