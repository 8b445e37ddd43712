"""What the trainings of a script take: the script is rehearsed, and each training that it reaches is measured.

With a fix, the changes that make it fit are written into the script, after the changed text was rehearsed and fits. This module
imports no torch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.audit.keywords import FitKeywords, MemoryKeywords
from kbitlint.audit.options import options_of
from kbitlint.errors import KbitlintError, TargetError
from kbitlint.fit_result import Written
from kbitlint.limits import held_to
from kbitlint.rehearsal.command import read_command
from kbitlint.rehearsal.merge import notes_of
from kbitlint.rehearsal.messages import Measure
from kbitlint.rehearsal.run import perform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext
    from kbitlint.rehearsal.command import Command
    from kbitlint.rehearsal.messages import Received
    from kbitlint.rehearsal.run import Rehearsal
    from kbitlint.source.documents import Document
    from kbitlint.step_report import FitReport, MemoryReport


def memory_of_script(words: Sequence[str], how: Rehearsal, arguments: Mapping[str, Any]) -> MemoryReport:
    """Return what a step of a script's training takes; of several trainings, of the one that takes most.

    Args:
        words: The script with its arguments, or the whole command.
        how: How it is rehearsed.
        arguments: Those of ``kbitlint.memory``.

    Raises:
        KbitlintError: There is no such script, it reaches no training, or no training can be measured.
    """
    found: MemoryReport = _most(read_command(words), how, "memory", arguments)
    return found


def fit_script(
    words: Sequence[str], how: Rehearsal, arguments: Mapping[str, Any], *, fix: bool = False, unsafe: bool = False
) -> FitReport:
    """Return whether a script's training fits; of several trainings, that of the one that takes most.

    Args:
        words: As for ``memory_of_script``.
        how: As for ``memory_of_script``.
        arguments: Those of ``kbitlint.fit``.
        fix: Whether to write the changes that make it fit into the script. They are written if settings of the script make
            all of them, and if the changed script, rehearsed, fits.
        unsafe: Whether a shorter length and a smaller rank may be written too.

    Raises:
        KbitlintError: As for ``memory_of_script``.
    """
    command = read_command(words)
    if not fix:
        asked: FitReport = _most(command, how, "fit", arguments)
        return asked
    if command.is_module:
        raise TargetError(command.script, "is a module: name its file to fix it")
    from kbitlint.fixes.script_settings import are_written_by, left_to_do, writable  # only a fix edits a script
    from kbitlint.source import documents  # as above

    document = documents.read(Path(command.script), command.script)
    names = frozenset() if document is None else writable(document.facts, unsafe=unsafe)
    report: FitReport = _most(command, how, "fit", {**arguments, "writable": names})
    if report.fits or report.answer is None or document is None:
        return report
    if not report.chosen:  # its steps fit, and a part beside them does not
        return _noted(report, f"nothing was written: --fix changes no setting of {report.too_large[0].name}")
    if not are_written_by(report.chosen, names):
        left = "; ".join(left_to_do(report.chosen, names))
        return _noted(report, f"nothing was written: {command.script} takes no setting for {left}")
    return _written(report, document, command, how, arguments)


def _written(
    report: FitReport, document: Document, command: Command, how: Rehearsal, arguments: Mapping[str, Any]
) -> FitReport:
    """Rehearse a script with the changes that make it fit. Write them if it fits, and return the report of that run."""
    from kbitlint.fixes.files import write  # as above
    from kbitlint.fixes.script_settings import rewritten  # as above

    file = rewritten(document, command.script, report.chosen)
    try:
        proof: FitReport = _most(command, how, "fit", arguments, text=file.after.encode(file.encoding))
    except KbitlintError as error:
        return _noted(report, f"nothing was written: with the changes, {error}")
    if proof.room >= 0 and proof.too_large:
        return _noted(report, f"nothing was written: with the changes its steps fit, its {proof.too_large[0].name} does not")
    if not proof.fits:
        return _noted(report, f"nothing was written: {command.script} takes the changes, and its training does not follow them")
    write([file])
    names = tuple(change.name for change in report.chosen)
    return dataclasses.replace(proof, written=Written(command.script, names, file.diff()))


def _noted(report: FitReport, note: str) -> FitReport:
    return dataclasses.replace(report, notes=(*report.notes, note))


def _most(command: Command, how: Rehearsal, function: str, arguments: Mapping[str, Any], text: bytes | None = None) -> Any:
    """Rehearse a command, measure each training, and return the report of the one that takes most."""
    options, given = _opening(arguments)
    _must_be_settings(given, options.context)
    with held_to(options.limits):
        received = perform(command, how, options, measure=Measure(function, given), text=text)
    reports = [(one.line, one.report) for one in received.measured if one.report is not None]
    if not reports:
        raise TargetError(command.script, _why_none(received))
    line, most = max(reports, key=lambda pair: _size_of(pair[1]))
    notes = [f"the training of line {line}" + (f", which takes most of {len(reports)}" if len(reports) > 1 else "")]
    notes += [f"line {one.line} cannot be measured: {one.failure}" for one in received.measured if one.failure]
    notes += notes_of(received)
    return dataclasses.replace(most, target=command.text, notes=(*most.notes, *notes))


def _opening(arguments: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Return the options of the rehearsal, and the arguments of the measurement. The script decides how its model is opened."""
    given = {name: value for name, value in arguments.items() if name not in ("quantize", "meta", "told")}
    options = options_of({name: given.pop(name, None) for name in ("context", "limits", "trust_remote_code")})
    return options, given


def _must_be_settings(given: Mapping[str, Any], context: TrainingContext) -> None:
    """Check the arguments of a measurement before a script is rehearsed for it.

    Raises:
        TypeError: There is no such argument.
        KbitlintError: A value is wrong.
    """
    from kbitlint.fixes.budget import plan_of  # an audit measures no step
    from kbitlint.fixes.lora import parse_lora  # as above
    from kbitlint.fixes.measured_target import launch_of, refuse_wrong_types  # an audit measures no step
    from kbitlint.upstream import cards  # as above

    refuse_wrong_types(**given)
    options_of(
        {
            name: value
            for name, value in given.items()
            if name not in FitKeywords.__annotations__ | MemoryKeywords.__annotations__
        }
    )
    plan_of(context, *(given.get(name) for name in ("optimizer", "loss", "accumulation", "every", "attention")))
    if given.get("gpus") or given.get("strategy") is None:  # else the script's launch has the cards
        launch_of(given.get("strategy"), given.get("gpus"), context, offload=bool(given.get("offload")))
    if given.get("lora") is not None:
        parse_lora(given["lora"])
    if "gpu" in given:
        cards.find(given["gpu"])


def _why_none(received: Received) -> str:
    failures = [f"the training of line {one.line} cannot be measured: {one.failure}" for one in received.measured]
    if failures:
        return failures[0]
    every = {0: received, **received.ranks}
    rank, raised = next(((rank, one.raised) for rank, one in every.items() if one.raised is not None), (0, None))
    if raised is not None:
        where = f" on rank {rank}" if rank else ""
        return f"reaches no training: line {raised.line} raises {raised.kind}{where}: {raised.message}"
    why = received.unfinished or next((skip.reason for skip in received.skips), "")
    return f"reaches no training{f': {why}' if why else ''}"


def _size_of(report: Any) -> int:
    """Return the bytes by which trainings of one script are compared."""
    if hasattr(report, "memory"):
        return int(report.memory.on_card)
    return max((step.peak for state in report.states for step in state.steps.values()), default=0)
