"""The check of the GitHub Action: one run, its SARIF log, a summary for the job's page, the exit code as an output.

The environment gives TARGETS, ARGS and SARIF. A later step of the action ends with the exit code, behind the upload.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

#: levels of SARIF, the worst one first, and the rows of a summary, for which GitHub takes a MiB
LEVELS = ("error", "warning", "note", "none")
MOST = 500


def main() -> int:
    log = Path(os.environ["SARIF"])
    words = [*shlex.split(os.environ.get("TARGETS", "")), *shlex.split(os.environ.get("ARGS", ""))]
    command = ["kbitlint", "check", *words, "--output-format", "sarif", "--output-file", str(log)]
    log.unlink(missing_ok=True)  # of an earlier step: a run that fails writes none
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    text = summary(json.loads(log.read_text(encoding="utf-8"))) if log.exists() else f"kbitlint failed: `{done.stderr.strip()}`"
    print(text)
    append("GITHUB_STEP_SUMMARY", text)
    append("GITHUB_OUTPUT", f"exit-code={done.returncode}")
    return 0


def summary(log: dict) -> str:
    """Return the results of a log as Markdown: a table, and what could not be checked."""
    run = log["runs"][0]
    results = [result for result in run["results"] if not result.get("suppressions")]
    results.sort(key=lambda result: LEVELS.index(result["level"]))
    lines = ["## kbitlint", ""]
    if results:
        lines += ["| severity | rule | place | message |", "|---|---|---|---|", *map(row, results[:MOST])]
        lines += [f"\nand {len(results) - MOST} more, in {os.environ['SARIF']}"] if len(results) > MOST else []
    else:
        lines += ["No violations."]
    notes = [note for note in run["invocations"][0]["toolExecutionNotifications"] if note["level"] == "error"]
    return "\n".join([*lines, *(f"\nNot checked: {cell(note['message']['text'])}" for note in notes), ""])


def row(result: dict) -> str:
    place = result["locations"][0]["physicalLocation"]
    where = f"{place['artifactLocation']['uri']}:{place['region']['startLine']}"
    return f"| {result['level']} | {result['ruleId']} | `{cell(where)}` | {cell(result['message']['text'])} |"


def cell(text: str) -> str:
    """Return a text for a cell of a table: a name in a model must not become markup of the page."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
    return " ".join(safe.split())


def append(variable: str, text: str) -> None:
    """Append a text to the file that the runner names in a variable; without a runner, to none."""
    file = os.environ.get(variable)
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
