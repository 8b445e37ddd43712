"""Runner of all benchmarks. It writes every goal and its figure to RESULTS.md and RESULTS.json.

    python -m benchmarks.run [--only PART ...] [--light]

Each part is one benchmark in a process of its own, whose output goes to benchmarks/results/PART.log. Long parts resume
where they were stopped. With ``--only``, the page keeps the earlier figures of the other parts and their dates.
Each section of the robustness benchmark is a part; ``--only robustness`` runs all of them.

``--light`` is for CI: it runs parts without torch, about a minute, and writes no page. It fails if a goal that does not
depend on the machine is missed, or if a ratio is worse than the page's by more than noise.

The exit code is 1 if a part does not run, if a goal is missed for which ``missed.toml`` has no reason, or if a goal is
met for which it has one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.goals import Goal, read

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
RESULTS, DATA, PAGE, MISSED = HERE / "results", HERE / "RESULTS.json", HERE / "RESULTS.md", HERE / "missed.toml"
PACKAGES = ("torch", "transformers", "bitsandbytes", "accelerate", "peft", "trl", "click")
#: a ratio may be worse than the page's by the share SLACK, or by NOISES times the noise of its run
SLACK, NOISES = 0.3, 3
ROBUSTNESS = "robustness"
GPU = "a GPU"
#: the sections of ``benchmarks.robustness.run``, each a part with a date of its own
SECTIONS = (
    *("parsers", "kills", "faults", "edits", "disk", "locked", "code", "configs", "inputs"),
    *("names", "many", "fixes", "factories", "oddities", "paths", "stops", "exits", "growth"),
)


@dataclass(frozen=True)
class Part:
    """One benchmark: a heading, and its commands, of which the last one writes the figures."""

    title: str
    commands: tuple[tuple[str, ...], ...]
    light: tuple[str, ...] | None = None
    """The command for CI. None means that CI leaves the part out."""
    kept: tuple[str, ...] = ()
    """Files from which a stopped part resumes. A finished part moves them to benchmarks/results."""
    needs: str = ""
    """What it needs that not every machine has, such as ``a GPU``. Without that it runs only if ``--only`` names it."""


PARTS = {
    "speed": Part(
        "Time and memory, in one run beside the work they are compared with",
        (("benchmarks.cost.speed",),),
        ("benchmarks.cost.speed", "--light"),
    ),
    "jobs": Part("Many targets", (("benchmarks.cost.jobs",),)),
    "source": Part(
        "Training scripts, labelled by what they really do", (("benchmarks.truth.scripts",),), ("benchmarks.truth.scripts",)
    ),
    "verdicts": Part(
        "Every architecture of four mappings: verdicts against real training steps",
        (
            ("benchmarks.truth.real_steps", "--task", "common", "--jobs", "2"),
            ("benchmarks.truth.verdicts", "--task", "common", "--jobs", "2"),
        ),
        kept=("truth.jsonl", "verdicts.jsonl"),
    ),
    "mappings": Part(
        "Architectures of the other mappings: verdicts against real training steps",
        (
            ("benchmarks.truth.real_steps", "--task", "further", "--jobs", "2", "--out", "benchmarks/truth-further.jsonl"),
            (
                *("benchmarks.truth.verdicts", "--task", "further", "--jobs", "2"),
                *("--real", "benchmarks/truth-further.jsonl", "--out", "benchmarks/verdicts-further.jsonl"),
            ),
        ),
        kept=("truth-further.jsonl", "verdicts-further.jsonl"),
    ),
    "adapters": Part(
        "Every kind of adapter of PEFT, in every order of preparation",
        (("benchmarks.truth.adapters",),),
        kept=("adapters.jsonl",),
    ),
    "diffusers": Part(
        "Tiny denoisers of diffusers, in nf4",
        (("benchmarks.truth.other_models", "diffusers"),),
        kept=("other-diffusers.jsonl",),
    ),
    "modules": Part(
        "Modules of no library, in nf4",
        (("benchmarks.truth.other_models", "modules"),),
        kept=("other-modules.jsonl",),
    ),
    "quantization": Part(
        "Other methods of quantization, as far as a CPU runs them",
        (("benchmarks.truth.quantization_methods",),),
        kept=("quantization.jsonl",),
        needs="packages that are not among the requirements (the head of benchmarks/truth/quantization_methods.py names them)",
    ),
    "trainers": Part(
        "Every trainer of TRL, in states that people bring",
        (("benchmarks.truth.trainers", "--rehearse"),),
        kept=("trainers.jsonl",),
    ),
    "generated": Part(
        "Generated training programs, run for real",
        (("benchmarks.truth.generated", "--programs", "440", "--seed", "310000"),),
        kept=("generated.jsonl",),
    ),
    "recipes": Part(
        "Random configurations of axolotl and LLaMA-Factory, against the validators of these programs",
        (("benchmarks.truth.recipes",),),
        needs="packages that are not among the requirements (the head of benchmarks/truth/recipes.py names them)",
    ),
    "public": Part(
        "Public training scripts, rehearsed",
        (
            (
                *("benchmarks.truth.public_rehearsals", "benchmarks/public-scripts.jsonl"),
                *("--out", "benchmarks/public-rehearsed.jsonl", "--verdicts", "benchmarks/public-verdicts.jsonl"),
            ),
        ),
        needs="a list of scripts that are not part of this repository, benchmarks/public-scripts.jsonl",
    ),
    "memory": Part("Bytes of a step, as told and as they are", (("benchmarks.cost.memory",),)),
    "recorded": Part("Bytes of a step, as an H200 took them", (("benchmarks.cost.recorded",),)),
    "published": Part(
        "Bytes of a step, as others published them", (("benchmarks.cost.published",),), kept=("published.jsonl",)
    ),
    "peers": Part(
        "Bytes of a step, as other estimators tell them of what others published",
        (("benchmarks.cost.peers",),),
        needs="packages that are not among the requirements (the head of benchmarks/cost/peers.py names them)",
    ),
    "ranks": Part("Bytes of a rank, as real ranks held them", (("benchmarks.cost.ranks",),), kept=("ranks.jsonl",)),
    "limits": Part(
        "What is said to fit, under a limit that real steps must keep", (("benchmarks.cost.limits",),), kept=("limits.jsonl",)
    ),
    "preparation": Part("What the fix costs, beside PEFT's prepare", (("benchmarks.cost.preparation",),)),
    "learning": Part(
        "What is learned after the fix, beside PEFT's prepare",
        (("benchmarks.cost.learning", "--jobs", "2"),),
        kept=("learning.jsonl",),
    ),
    "undo": Part(
        "What a fix leaves behind, on every architecture", (("benchmarks.truth.undo", "--jobs", "2"),), kept=("undo.jsonl",)
    ),
    **{
        f"{ROBUSTNESS}-{section}": Part(
            "Bad inputs, bad code, bad disks and bad moments",
            (("benchmarks.robustness.run", "--only", section),),
            kept=("variants.jsonl",) if section == "fixes" else (),
        )
        for section in SECTIONS
    },
    "fuzz": Part("Parsers of files of strangers, mutated", (("benchmarks.robustness.fuzz", "--minutes", "20"),)),
    "promises": Part("Held by tests", (("benchmarks.suite",),)),
    "verdicts-cuda": Part(
        "On a GPU: verdicts against real training steps",
        (
            ("benchmarks.truth.real_steps", "--device", "cuda", "--jobs", "0", "--out", "benchmarks/truth-cuda.jsonl"),
            (
                *("benchmarks.truth.verdicts", "--device", "cuda", "--jobs", "2"),
                *("--real", "benchmarks/truth-cuda.jsonl", "--out", "benchmarks/verdicts-cuda.jsonl"),
            ),
        ),
        kept=("truth-cuda.jsonl", "verdicts-cuda.jsonl"),
        needs=GPU,
    ),
    "memory-cuda": Part("On a GPU: bytes of a step", (("benchmarks.cost.memory", "--cuda"),), needs=GPU),
    "preparation-cuda": Part(
        "On a GPU: what the fix costs, beside PEFT's prepare", (("benchmarks.cost.preparation", "--cuda"),), needs=GPU
    ),
    "promises-cuda": Part("On a GPU: held by tests", (("benchmarks.suite", "--cuda"),), needs=GPU),
}


def run(name: str, commands: tuple[tuple[str, ...], ...]) -> list[Goal] | str:
    """Run the commands of a part; return its goals, or the reason why there are none."""
    RESULTS.mkdir(exist_ok=True)
    figures, log = RESULTS / f"{name}.json", RESULTS / f"{name}.log"
    figures.unlink(missing_ok=True)
    with log.open("w") as file:
        for command in commands:
            further = ("--json", str(figures)) if command is commands[-1] else ()
            code = subprocess.run(
                [sys.executable, "-m", command[0], *command[1:], *further],
                cwd=HERE.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                check=False,
            ).returncode
            if code > 1 or (code and not further):
                return f"{' '.join(command)} left with {code}; see {log}"
    return read(figures) if figures.exists() else f"{commands[-1][0]} wrote no figures; see {log}"


def measure(names: list[str]) -> bool:
    """Run parts and write their figures to RESULTS.json; return whether all of them ran."""
    whole = True
    for name in names:
        print(f"{name}: ", end="", flush=True)
        start = time.monotonic()
        found = run(name, PARTS[name].commands)
        minutes = round((time.monotonic() - start) / 60, 1)
        if isinstance(found, str):
            print(f"did not run: {found}", flush=True)
            whole = False
            continue
        print(f"{len(found)} goals, {sum(not goal.met for goal in found)} missed, in {minutes} min", flush=True)
        for kept in PARTS[name].kept:
            (HERE / kept).replace(RESULTS / kept)
        known = load()  # read again, as another run may have written its part meanwhile
        known[name] = {
            "date": date.today().isoformat(),  # noqa: DTZ011  # the local day of the measurement
            "versions": versions(),
            "goals": [asdict(goal) for goal in found],
        }
        DATA.write_text(json.dumps({part: known[part] for part in PARTS if part in known}, indent=1) + "\n")
    return whole


def versions() -> dict[str, str]:
    """Return the versions of kbitlint, Python and the libraries, and the machine."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"kbitlint": importlib.metadata.version("kbitlint"), "python": platform.python_version(), **found, "on": machine}


def load() -> dict[str, Any]:
    """Return the content of RESULTS.json: part -> date, versions, goals. Empty if there is no file."""
    return json.loads(DATA.read_text()) if DATA.exists() else {}


def page(known: dict[str, Any], reasons: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of RESULTS.md."""
    every = [Goal(**goal) for part in known.values() for goal in part["goals"]]
    missed = [goal for goal in every if not goal.met]
    yield "# What kbitlint promises, measured"
    yield ""
    yield f"{len(every) - len(missed)} of {len(every)} goals are met. Written by `make bench`; `benchmarks/RESULTS.json` holds"
    yield "the same figures. `x` is a ratio of two figures of one run, which is what compares between machines."
    for title, names in itertools.groupby((name for name in PARTS if name in known), lambda name: PARTS[name].title):
        shown = list(names)
        yield f"\n## {title}"
        yield f"\n`python -m benchmarks.run --only {shown[0] if len(shown) == 1 else ROBUSTNESS}`\n"
        yield "| | measured | goal | | on |"
        yield "|---|---:|---:|---|---|"
        for part in (known[name] for name in shown):
            for goal in (Goal(**goal) for goal in part["goals"]):
                met = "met" if goal.met else "**missed**"
                yield f"| {goal.what} | {goal.measured} | {goal.wanted} | {met} | {part['date']} |"
    if missed:
        yield "\n## Missed"
    for goal in missed:
        yield f"\n### {goal.what}: {goal.measured}, goal {goal.wanted}"
        told = reasons.get(goal.what, {"reason": "No reason is known yet."})
        yield f"\n{told['reason'].strip()}"
        if "profile" in told:
            yield f"\n```text\n{told['profile'].strip()}\n```"
    if unmeasured := [name for name, part in PARTS.items() if part.needs and name not in known]:
        yield "\n## Not measured\n"
    for name in unmeasured:
        yield f"- {PARTS[name].title}: `python -m benchmarks.run --only {name}` needs {PARTS[name].needs}."
    yield "\n## Versions\n"
    for shown in dict.fromkeys(
        ", ".join(f"{key} {value}" for key, value in part["versions"].items()) for part in known.values()
    ):
        yield f"- {shown}"


def write_page() -> list[str]:
    """Write RESULTS.md; return a line for each missed goal without a reason, and each reason without a missed goal."""
    known = load()
    reasons = tomllib.loads(MISSED.read_text())
    PAGE.write_text("\n".join(page(known, reasons)) + "\n")
    missed = [goal["what"] for part in known.values() for goal in part["goals"] if not Goal(**goal).met]
    return [f"missed, and missed.toml gives no reason: {what}" for what in missed if what not in reasons] + [
        f"missed.toml gives a reason, and it is met: {what}" for what in reasons if what not in missed
    ]


def regressions(found: list[Goal], known: list[Goal]) -> Iterator[str]:
    """Yield a line for each goal that is missed now and was met before, and each ratio that is worse by more than noise.

    Goals in seconds are left out, because they depend on the machine. A goal that the record misses too has its reason in
    missed.toml; it must not become worse.
    """
    before = {goal.what: goal for goal in known}
    for goal in found:
        if goal.unit in ("s", "ms"):
            continue
        old = before.get(goal.what)
        if not goal.met and (old is None or old.met):
            yield f"missed: {goal}"
        if old is None or goal.unit != "x":
            continue
        share = goal.value / old.value if not goal.at_least else old.value / goal.value
        slack = max(SLACK, NOISES * max(goal.noise, old.noise))
        if share > 1 + slack:
            yield f"worse than {old.measured} by more than {slack:.0%}: {goal}"


def light() -> int:
    """Run the parts for CI, and return the exit code."""
    known, bad = load(), []
    for name, part in PARTS.items():
        if part.light is None:
            continue
        found = run(f"{name}-light", (part.light,))
        if isinstance(found, str):
            bad.append(found)
            continue
        for goal in found:
            print(goal, flush=True)
        bad += regressions(found, [Goal(**goal) for goal in known.get(name, {}).get("goals", ())])
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = (*PARTS, ROBUSTNESS)
    parser.add_argument("--only", action="append", choices=choices, metavar="PART", help=f"{', '.join(choices)}; repeatable")
    parser.add_argument("--light", action="store_true", help="what CI runs")
    options = parser.parse_args()
    if options.light:
        return light()
    only = options.only or [
        name for name, part in PARTS.items() if not part.needs or (part.needs == GPU and torch.cuda.is_available())
    ]
    whole = measure([name for name in PARTS if name in only or (ROBUSTNESS in only and name.startswith(f"{ROBUSTNESS}-"))])
    for name, part in load().items():
        print(f"\n{PARTS[name].title} ({part['date']})", *(Goal(**goal) for goal in part["goals"]), sep="\n  ")
    wrong = write_page()
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"\nwritten: {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
    return 0 if whole and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
