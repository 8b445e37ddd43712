"""Audits source files: one file, or all files of a folder, in parallel processes if there are many."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.audit.script_audit import ScriptAudit
from kbitlint.audit.scripts import audit_file, run
from kbitlint.engine import NOTHING, merge
from kbitlint.errors import TargetError
from kbitlint.report import Report, report_of
from kbitlint.result import Skip
from kbitlint.runtime import amount, content
from kbitlint.runtime.observations import observed
from kbitlint.source import documents
from kbitlint.source.folders import walk
from kbitlint.source.launches import commands_in
from kbitlint.target import CHECKPOINT_FILES, SHELLS, Kind, Target
from kbitlint.violation import Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext
    from kbitlint.rule import Rule
    from kbitlint.runtime.observations import Observations

#: the beginning of the names of kbitlint's own threads; they hold no lock that an audit needs
OWN_THREADS = "kbitlint "
#: from this number of files on, more processes are faster than one: a file that concerns training takes 20 to 150 ms, and
#: the processes 60
MANY = 16


def sweep(root: Path, rules: tuple[Rule, ...], context: TrainingContext, folder: Path | None = None) -> ScriptAudit:
    """Audit every file of a folder that can configure or run a training.

    Args:
        root: The folder.
        rules: The rules to run.
        context: The training context of all files.
        folder: The folder in which results are kept for the next run; None keeps none.
    """
    notes: list[str] = []
    named = {path.relative_to(root).as_posix(): path for path in walk(root, notes)}
    results = list(_known_and_new(named, root, rules, context, folder))
    outcome = merge(result.outcome for result in results)
    return ScriptAudit(
        dataclasses.replace(outcome, violations=_once(outcome.violations, {place for one in results for place in one.decided})),
        len(named),
        sum(result.read for result in results),
        (*(Skip("", Surface.SOURCE, note) for note in notes), *(skip for result in results for skip in result.skips)),
        sum(result.silenced for result in results),
    )


def _known_and_new(
    named: Mapping[str, Path], root: Path, rules: tuple[Rule, ...], context: TrainingContext, folder: Path | None
) -> Iterable[ScriptAudit]:
    """Yield the results of the files that concern training, in the order of their names."""
    if folder is None:
        concern = [(path, name) for name, path in named.items() if _worth(path)]
        return [audit for audit, _ in _each(concern, root, rules, context, observe=False)]
    from kbitlint.audit.cache import opened  # a run without a cache needs none of it

    cache = opened(folder, root, rules, context)
    found = dict(cache.found(named))
    worth: list[tuple[Path, str]] = []
    asked: dict[str, Observations] = {}
    for name, path in named.items():
        if name not in found:
            with observed() as seen:
                concerns = _worth(path)
            if concerns:
                worth.append((path, name))
                asked[name] = seen
            else:
                found[name] = None
                cache.keep(name, (None, seen))
    for (path, name), (audit, seen) in zip(worth, _each(worth, root, rules, context, observe=True), strict=True):
        found[name] = audit
        if path.name not in CHECKPOINT_FILES:  # the audit of a checkpoint reads headers of weights too
            cache.keep(name, (audit, seen | asked[name]))
    cache.write(named)
    results = (found[name] for name in named)
    return [result for result in results if result is not None]


def _once(violations: Iterable[Violation], decided: set[tuple[str, int | None]]) -> tuple[Violation, ...]:
    """Return the violations of a folder, each once: a file's own audit and those of the files that import it find the same.

    The most severe one remains, with the fix of the file's own audit. What a later call may decide is left out where the file
    that imports the call shows the decision.
    """
    found: dict[tuple[object, ...], Violation] = {}
    for violation in violations:
        if violation.evidence.get("trained_here") is False and (violation.at.file, violation.at.line) in decided:
            continue
        key = (violation.code, violation.at)
        other = found.setdefault(key, violation)
        worse = violation if violation.severity > other.severity else other
        fix = next((one.fix for one in (other, violation) if one.fix is not None and one.fix.edits), worse.fix)
        found[key] = dataclasses.replace(worse, fix=fix)
    return tuple(found.values())


def _worth(path: Path) -> bool:
    """Return whether the bytes of a file mention training; most files of a repository do not.

    True for a file that is too large or cannot be read: the audit of the file reports that.
    """
    try:
        data = content.read(path, documents.MAX_BYTES)
    except OSError:
        return True
    if path.name in CHECKPOINT_FILES:
        return b"quantization_config" in data or b"peft_type" in data
    return documents.worth_parsing(path, data)


def _each(
    named: Sequence[tuple[Path, str]], root: Path, rules: tuple[Rule, ...], context: TrainingContext, *, observe: bool
) -> Iterable[tuple[ScriptAudit, Observations]]:
    """Return the audit of each file, with what was asked about the file system for it."""
    amount.add(len(named))

    def one(path: Path, name: str) -> tuple[ScriptAudit, Observations]:
        if not observe:
            return audit_file(path, name, rules, context), {}
        with observed() as seen:
            return audit_file(path, name, rules, context), seen

    cores = _cores()
    if len(named) < MANY or cores < 2 or _has_threads() or not hasattr(os, "fork"):  # one core gains nothing
        return [one(path, name) for path, name in amount.counted(named)]
    from kbitlint.runtime import import_paths, processes  # only a large folder needs multiprocessing
    from kbitlint.source.kinds import flow  # noqa: F401  # most scripts need both: the processes share what is imported here
    from kbitlint.source.text import data_flow  # noqa: F401  # as above

    parent = os.getpid()

    def audit(chunk: Sequence[tuple[Path, str]]) -> list[tuple[ScriptAudit, Observations]]:
        processes.die_with_parent(parent)
        return [one(path, name) for path, name in chunk]

    size = max(1, len(named) // (2 * cores))  # the files of a folder often import the same ones, which a process parses once
    chunks = [named[start : start + size] for start in range(0, len(named), size)]
    pool = processes.Pool(audit, cores, folders=import_paths.reached_by([str(root)]))
    found: dict[int, list[tuple[ScriptAudit, Observations]]] = {}
    for number, result in processes.run(pool, chunks):
        if isinstance(result, processes.Unfinished):
            raise TargetError(root, result.reason)
        found[number] = result
        amount.done(len(result))
    return [swept for number in range(len(chunks)) for swept in found[number]]


def _cores() -> int:
    """Return the number of cores that this process may use; ``taskset`` and schedulers of clusters lend it some of them."""
    return min(os.cpu_count() or 1, len(os.sched_getaffinity(0)) if sys.platform == "linux" else sys.maxsize)


def _has_threads() -> bool:
    """Return whether other threads run: a process forked beside them may wait forever for a lock that one of them held."""
    return any(
        not thread.name.startswith(OWN_THREADS) for thread in threading.enumerate() if thread is not threading.main_thread()
    )


def _launched(target: Target) -> str:
    """Return what to audit in place of a shell script that launches a Python file; empty for other files."""
    path = Path(target.place)
    if path.suffix not in SHELLS or target.data is not None:
        return ""
    named = next((word for words in commands_in(path) for word in words if word.endswith(".py")), "")
    return f"it launches {named}: check that script, or `kbitlint rehearse {target.text}`" if named else ""


def audit_source(target: Target, rules: tuple[Rule, ...], options: Options) -> Report:
    """Audit a script or a folder of scripts; no model is built and no code of a script runs."""
    path = Path(target.place)
    nothing = "nothing here loads, prepares or trains a quantized model"
    if target.kind is Kind.TREE:
        swept = sweep(path, rules, options.context, options.cache)
        counted = f"{swept.read} of {swept.files} files" if (swept.files, swept.read) != (1, 1) else "1 file"
        summary = f"{counted} {'concerns' if swept.read == 1 else 'concern'} the training of quantized models"
        if not swept.files:
            summary, nothing = "", "the folder holds no checkpoint, script, notebook or training configuration"
    else:
        document = documents.of(path, target.text, target.data)
        swept = ScriptAudit(NOTHING, 1)
        summary = ""
        if document is not None:
            outcome, silenced = run(rules, document.facts, options.context)
            swept = ScriptAudit(outcome, 1, 1, silenced=silenced)
    skips = swept.skips
    if not swept.read and not skips:
        skips = (Skip("", Surface.SOURCE, _launched(target) or nothing),)
    notes = (f"{swept.silenced} silenced by comments",) if swept.silenced else ()
    report = report_of(target.text, None, swept.outcome, notes=notes, skips=skips)
    return dataclasses.replace(report, summary=summary)
