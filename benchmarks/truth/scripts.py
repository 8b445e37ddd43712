"""Precision and recall of the source rules on the labelled scripts of the tests.

    python -m benchmarks.truth.scripts [--json FILE]

A faulty line of a script ends in ``# fault: KB401``, and a line that is only worth knowing ends in ``# note: KB302``. The
labels describe real training, not the output of kbitlint. The exit code is 1 if a label is missed or a line without one
is flagged.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from benchmarks.goals import Goal, leave
from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import all_rules
from kbitlint.source import documents
from kbitlint.upstream.versions import NEWEST, bounds_in
from kbitlint.violation import Severity

SCRIPTS = Path(__file__).parents[2] / "tests" / "data" / "scripts"
_LABEL = re.compile(r"# (fault|note): ((?:KB\d+ ?)+)")
#: the labels of JSON files, which have no comments
IN_JSON = {"trl_sft_fp16.json": {("fault", 1, "KB120")}}


def labels(path, text):
    """Return (kind, line, code) of every label."""
    found = set(IN_JSON.get(path.name, ()))
    for number, line in enumerate(text.split("\n"), start=1):
        for kind, codes in _LABEL.findall(line):
            found |= {(kind, number, code) for code in codes.split()}
    return found


def findings(facts):
    """Return (kind, line, code) of every violation, in lines of the facts' text."""
    outcome, _ = run(all_rules(), facts, TrainingContext())
    if outcome.crashes:
        raise SystemExit(f"{facts.file}: {outcome.crashes[0].error}")
    first = {number: line for line, number in facts.cells}
    found = set()
    for violation in outcome.violations:
        cell = re.match(r"cell (\d+)", violation.at.path)
        line = violation.at.line + (first[int(cell[1])] - 1 if cell else 0)
        found.add(("note" if violation.severity is Severity.INFO else "fault", line, violation.code))
    return found


def judged(path):
    """Return (labels, findings) of one script."""
    content = path.read_bytes()
    document = documents.parse(path, content, path.name, NEWEST | bounds_in(content.decode())[0])
    if document is None:
        return labels(path, content.decode()), set()
    return labels(path, document.facts.text), findings(document.facts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    counts, wrong = Counter(), []
    paths = sorted(SCRIPTS.iterdir())
    for path in paths:
        labelled, found = judged(path)
        for kind in ("fault", "note"):
            mine, theirs = ({item for item in items if item[0] == kind} for items in (found, labelled))
            counts[kind, "right"] += len(mine & theirs)
            counts[kind, "false"] += len(mine - theirs)
            counts[kind, "missed"] += len(theirs - mine)
        wrong += [
            f"{path.name}:{line} {code} is flagged as a {kind} and is none" for kind, line, code in sorted(found - labelled)
        ]
        wrong += [f"{path.name}:{line} {code} is a {kind} and is not flagged" for kind, line, code in sorted(labelled - found)]
    figures = {"scripts": len(paths)}
    for kind in ("fault", "note"):
        right, false, missed = (counts[kind, what] for what in ("right", "false", "missed"))
        figures[kind] = {"labelled": right + missed, "precision": right / (right + false), "recall": right / (right + missed)}
    for line in wrong:
        print(line)
    return leave(goals(figures), options.json, figures=figures)


def goals(figures):
    """Yield the goals: at least 60 labelled scripts, and perfect precision and recall."""
    yield Goal("labelled training scripts", figures["scripts"], 60, "", at_least=True)
    for kind in ("fault", "note"):
        shown = figures[kind]
        for what in ("precision", "recall"):
            yield Goal(f"{what} of {shown['labelled']} {kind}s in them", shown[what], 1, "%", at_least=True)


if __name__ == "__main__":
    sys.exit(main())
