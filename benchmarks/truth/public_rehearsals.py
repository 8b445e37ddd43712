"""Rehearsals of public training scripts: how many reach their first training step, and what each one is reported to do.

    python -m benchmarks.truth.public_rehearsals SCRIPTS --out FILE [--only NAME...] [--timeout SECONDS]
    python -m benchmarks.truth.public_rehearsals SCRIPTS --out FILE --verdicts VERDICTS [--json FILE]

``SCRIPTS`` is a folder, whose scripts run without arguments, or a file of one JSON object a line: ``name``, ``repository``,
``folder`` (the working folder), ``command`` (its words) and, if needed, ``environment``. The scripts themselves are not part of
this repository. Each is rehearsed in a process of its own, one at a time. Scripts that ``--out`` has are not run again.

``VERDICTS`` says by hand what holds of a script that did not reach training or that has an error: one JSON object a line with
``name`` and ``true``, whether a real run ends so with the installed versions, and ``cause``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.goals import Goal, leave

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]
#: what one rehearsal is given beside the environment of the benchmark
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def scripts_in(place: Path) -> list[dict[str, Any]]:
    """Return the scripts of a folder, or those that a file lists."""
    if place.is_file():
        return lines_of(place)
    found = sorted(file for file in place.rglob("*") if file.suffix in (".py", ".ipynb"))
    return [
        {
            "name": str(file.relative_to(place)),
            "repository": file.parent.name,
            "folder": str(file.parent),
            "command": [file.name],
        }
        for file in found
    ]


def lines_of(file: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line; none if there is no such file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()] if file.exists() else []


def rehearse(words: list[str], timeout: float) -> dict[str, Any]:
    """Rehearse a command in this process' working folder, and return what its reports say."""
    import kbitlint  # one process a script
    from kbitlint.rehearsal.run import Rehearsal, run

    begun = time.monotonic()
    try:
        reports = run(words, Rehearsal(timeout=timeout), {})
    except kbitlint.KbitlintError as error:
        return {"refused": str(error), "seconds": round(time.monotonic() - begun, 1)}
    violations = [one for report in reports for one in report.violations]
    return {
        "trainings": sum(note.count("line ") or 1 for note in reports[0].notes if note.startswith("training reached")),
        "raised": [[one.at.file, one.at.line, one.evidence["raised"]] for one in violations if "raised" in one.evidence],
        "findings": sorted({f"{one.code} {one.severity.value}: {one.message}" for one in violations}),
        "skips": sorted({skip.reason for report in reports for skip in report.skips if not skip.code}),
        "notes": [note for report in reports for note in report.notes],
        "crashes": [str(crash) for report in reports for crash in report.crashes],
        "seconds": round(time.monotonic() - begun, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


def in_process(one: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Rehearse a script in a process of its own, which ends with it."""
    command = [sys.executable, "-m", "benchmarks.truth.public_rehearsals", "--one", json.dumps(one["command"])]
    path = os.pathsep.join((str(ROOT), *one.get("path", ())))
    done = subprocess.run(
        [*command, "--timeout", str(timeout)],
        cwd=one["folder"],
        env={**os.environ, **_ENVIRONMENT, **one.get("environment", {}), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout + 120,
    )
    last = done.stdout.strip().splitlines()[-1:]
    measured = json.loads(last[0]) if last else {"refused": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    return {"name": one["name"], "repository": one["repository"], **measured}


def summary(results: Iterable[dict[str, Any]], verdicts: Iterable[dict[str, Any]]) -> list[Goal]:
    """Return the figures of all results, judged by the verdicts of a reader."""
    results, judged = list(results), {one["name"]: one for one in verdicts}
    reached = [one for one in results if one.get("trainings")]
    real = [one for one in results if not one.get("trainings") and judged.get(one["name"], {}).get("true")]
    raising = [one for one in results if one.get("raised")]
    wrong = [one for one in raising if not judged.get(one["name"], {}).get("true", False)]
    seconds = sorted(one.get("seconds", 0.0) for one in results)
    can = len(results) - len(real)
    return [
        Goal(
            "scripts, or drivers from a README, of as many repositories",
            len({one["repository"] for one in results}),
            60,
            "",
            at_least=True,
        ),
        Goal(
            "reached their first training step, of those that do so really", len(reached) / max(can, 1), 0.8, "%", at_least=True
        ),
        Goal("exceptions reported that the script does not have", len(wrong), 0, "", of=len(raising)),
        Goal("crashes of rules", sum(len(one.get("crashes", ())) for one in results), 0, ""),
        Goal("seconds of a rehearsal, median", seconds[len(seconds) // 2] if seconds else 0, 60, "s"),
        Goal("memory of a rehearsal, most", max((one.get("peak_mb", 0) for one in results), default=0), 3000, "MB"),
    ]


def main() -> int:
    """Rehearse what is not yet measured, or print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("public-rehearsals.jsonl"))
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--timeout", type=float, default=240.0)
    parser.add_argument("--verdicts", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(rehearse(json.loads(chosen.one), chosen.timeout)))
        return 0
    if chosen.scripts is None:
        parser.error("name a folder of scripts, or a file that lists them")
    kept = {one["name"]: one for one in lines_of(chosen.out)}
    for one in scripts_in(chosen.scripts):
        if (one["name"] in kept and not chosen.only) or (chosen.only and one["name"] not in chosen.only):
            continue
        kept[one["name"]] = in_process(one, chosen.timeout)
        chosen.out.write_text("".join(json.dumps(result) + "\n" for result in kept.values()), "utf-8")
        print(one["name"], kept[one["name"]].get("trainings"), kept[one["name"]].get("seconds"), flush=True)
    return leave(summary(kept.values(), lines_of(chosen.verdicts) if chosen.verdicts else ()), chosen.json)


if __name__ == "__main__":
    sys.exit(main())
