"""Rehearsals of generated programs beside their real runs: the same exception and line, or the same trained parameters."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.truth.program_runs import NOTHING, place
from benchmarks.truth.rehearsal_server import Server
from kbitlint.violation import Consequence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.truth.programs import Program


@functools.cache
def server() -> Server:
    """Return the process that rehearses, which is started once."""
    return Server(Path(tempfile.mkdtemp(prefix="kbitlint-rehearsals-")))


def rehearsed(program: Program) -> dict[str, Any]:
    """Return how the rehearsal of a program ends, what it trains, and its errors."""
    with tempfile.TemporaryDirectory(prefix="kbitlint-program-") as folder:
        place(program, Path(folder))
        return rehearsed_in(folder, ["train.py"])


def rehearsed_in(folder: str, words: Sequence[str]) -> dict[str, Any]:
    """Return how the rehearsal of a command in a folder ends, what it trains, and its errors."""
    before = Path.cwd()
    os.chdir(folder)  # the findings on the script are merged into the reports
    try:
        reports = server().reports(folder, words)
    finally:
        os.chdir(before)
    violations = [violation for report in reports for violation in report.violations]
    raised = [(v.evidence["raised"], v.evidence.get("at", v.at.line)) for v in violations if "raised" in v.evidence]
    return {
        "raised": raised[0][0] if raised else "",
        "line": raised[0][1] if raised else None,
        "trained": sorted({one.path for report in reports for one in report.outline or () if one.trainable}),
        "errors": sorted({f"{v.code} {v.message}" for v in violations if v.severity.value == "error"}),
        "failing": sorted({v.code for v in violations if v.consequence is Consequence.FAILS}),
        "reached": [note for note in reports[0].notes if note.startswith("training reached")],
        "skips": [skip.reason for report in reports for skip in report.skips if not skip.code],
        "crashes": [crash.traceback for report in reports for crash in report.crashes],
    }


def compared(line: dict[str, Any]) -> str | None:
    """Return in what a rehearsal does not end as the real run does, or None."""
    played, error = line["rehearsal"], line["error"]
    kind, raised = error.partition(":")[0], played["raised"].partition(":")[0]
    if played["crashes"]:
        return "rehearsal: crash"
    if error and not raised:  # the step itself raises, which its trace shows; or a skip tells what is not on this machine
        stopped = any(f":{line['line']}: not rehearsed" in skip and kind in skip for skip in played["skips"])
        named = played["failing"] and played["reached"]
        return None if named or stopped else f"rehearsal: {kind} is not raised"
    if not error and raised:
        return f"rehearsal: {raised} is raised"
    if error and (kind != raised or line["line"] != played["line"]):
        return f"rehearsal: {raised} at line {played['line']}, not {kind} at line {line['line']}"
    real, found = ({_module(name) for name in line.get("trained", ())}, {_module(f"{path}.x") for path in played["trained"]})
    if not error and real != found and not (line["real"] == NOTHING and not found):  # a loop without a backward pass
        return "rehearsal: other parameters train"
    return None


def _module(name: str) -> str:
    """Return the path of the module of a parameter, without the wrappers around the model and around its layers."""
    path = name.rpartition(".")[0].replace("_checkpoint_wrapped_module.", "").rpartition("base_model.model.")[2]
    while path != (inner := re.sub(r"^(_orig_mod|module|model)\.", "", path)):
        path = inner
    return path
