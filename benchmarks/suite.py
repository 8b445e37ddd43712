"""Promises that tests assert: each with its test modules, and with the number of tests that fail.

    python -m benchmarks.suite [--cuda] [--json FILE]

A test module is of the promise of its folder in ``FOLDERS``, unless ``MODULES`` gives it another one: a new module needs no
line here. The benchmark runs the whole test suite once. A skipped test proves nothing, so it counts as a failure. Tests of
another version of transformers are left out; ``make test-oldest`` runs them. So are those that need a GPU; ``--cuda`` runs
them alone. The exit code is 1 if a test does not pass.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from benchmarks.goals import Goal, leave

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
#: folder of tests -> the promise that its modules assert
FOLDERS = {
    ".": "the package, and what its start takes",
    "audit": "planted faults are named exactly, fixed, and training proves it",
    "benchmarks": "batches and benchmarks",
    "causes": "80 and 33 root causes, by id",
    "cli": "bad and hostile input: one line, exit code 2",
    "context": "several ranks, several kinds of device: verdict = outcome",
    "files": "targets: Hub, factories, remote code",
    "fixes": "edits: all or nothing, undone bit for bit",
    "integrations": "the callback in real Trainers, and its counterparts",
    "jobs": "many targets at once",
    "model": "live models of every kind, in the modes of any caller",
    "output": "reports: text, JSON, SARIF, GitHub, JUnit",
    "rehearsal": "a rehearsal ends as the real run does, in its enclosure",
    "rules": "every rule: what it flags, what it does not, its fix",
    "runtime": "what is executed, read and written, by kind of target",
    "source": "scripts, notebooks, configurations",
    "upstream": "what constructors refuse, against the installed libraries",
}
#: promise -> the modules that assert it, where that is not the promise of their folder
MODULES = {
    "every rule: what it flags, what it does not, its fix": ("test_rules_meta",),
    "norms of 601 classes, labelled by hand": (
        "model/test_norm_list",
        "model/test_norms",
    ),
    "the trace leaves the model as it is, and says what it cannot trace": (
        "model/test_kernel_dtypes",
        "model/test_trace",
        "model/test_traced_operators",
        "model/test_trainer_loss",
        "model/test_twin",
    ),
    "the memory table, and what fits a card": (
        "benchmarks/test_memory_benchmarks",
        "model/test_fit",
        "model/test_live_losses",
        "model/test_memory",
        "model/test_memory_of_like_layers",
        "model/test_passes",
        "model/test_step_bytes",
        "model/test_step_settings",
        "model/test_tensor_parallel",
        "output/test_timeline",
    ),
    "an error of a step is one of training, seen on a small copy": ("model/test_small_copy",),
    "diffusion models and plain modules": (
        "model/test_diffusion",
        "model/test_fitted_batches",
        "model/test_plain_modules",
        "model/test_undocumented_inputs",
    ),
    "a rehearsal ends as the real run does, in its enclosure": (
        "benchmarks/test_public_rehearsals",
        "runtime/test_call_watch",
        "runtime/test_enclosure",
        "runtime/test_task_limit",
    ),
    "edits: all or nothing, undone bit for bit": ("model/test_edits",),
    "folders: fixed, loaded again, trained": (
        "fixes/test_checkpoint_folder",
        "model/test_experts",
    ),
    "wrapped models get the verdict of the bare one": (
        "model/test_quantized",
        "model/test_wrappers",
    ),
    "a sample of real steps against verdicts": ("benchmarks/test_truth",),
    "scripts, notebooks, configurations": (
        "audit/test_cache",
        "fixes/test_source_folder",
    ),
    "time and memory that grow with a file as the file does": ("source/test_growth",),
    "targets: Hub, factories, remote code": (
        "model/test_build",
        "model/test_factories",
    ),
    "several ranks, several kinds of device: verdict = outcome": (
        "integrations/test_ranks",
        "integrations/test_records",
        "integrations/test_torchrun",
        "model/test_devices",
        "model/test_ranks",
        "rehearsal/test_ranks",
    ),
    "the callback in real Trainers, and its counterparts": ("rehearsal/test_trainers",),
    "the whole life of a run: what targets cover, what versions allow, what was merged": (
        "cli/test_env",
        "files/test_merged",
        "model/test_coverage",
    ),
    "editors, notebooks, CI, the shell": (
        "cli/test_conventions",
        "test_automation",
        "test_lsp",
        "test_notebook",
        "test_published",
    ),
    "messages, logs and trainer states explained": ("cli/test_diagnosis",),
    "the page, in a browser": ("output/test_page_in_browser",),
    "bad and hostile input: one line, exit code 2": (
        "files/test_hostile",
        "runtime/test_other_systems",
        "runtime/test_patterns",
    ),
    "what is executed, read and written, by kind of target": ("test_security",),
    "projects: configuration, suppressions, init, rule packs": (
        "cli/test_init",
        "test_config",
        "test_registry",
        "test_suppress",
        "test_testing",
    ),
    "many targets at once": ("runtime/test_preloaded",),
    "threads, processes, large tensors, the same bytes again": (
        "audit/test_concurrency",
        "audit/test_large",
        "output/test_reproducible",
    ),
    "files are written whole or not at all": ("files/test_atomic",),
    "the package, and what its start takes": (
        "runtime/test_distributions",
        "runtime/test_optimized_python",
    ),
    "batches and benchmarks": ("model/test_batch",),
    "what is said of CUDA, on a GPU": ("model/test_cuda",),
}
PROMISES = tuple(dict.fromkeys((*FOLDERS.values(), *MODULES)))
#: the promises whose tests need a GPU, and the folder of those tests
ON_GPU, GPU_TESTS = ("what is said of CUDA, on a GPU",), ROOT / "tests" / "model" / "test_cuda.py"
#: parts of the reasons for which pytest skips a test that another run holds
ELSEWHERE = ("transformers", "needs a GPU")


def promise_of(module: str) -> str:
    """Return the promise of a test module, which is named by its dotted path. A class of tests may follow."""
    parts = module.removeprefix("tests.").split(".")
    place = "/".join(parts[: 1 + next((number for number, part in enumerate(parts) if part.startswith("test_")), 0)])
    other = next((promise for promise, modules in MODULES.items() if place in modules), None)
    return other or FOLDERS.get(place.rpartition("/")[0] or ".", FOLDERS["."])


def goals(report: Path) -> Iterator[Goal]:
    """Yield a goal for each promise, counted from pytest's JUnit report."""
    counts = {promise: [0, 0] for promise in PROMISES}
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314  # pytest has just written it
        skipped = case.find("skipped")
        if skipped is not None and any(reason in skipped.get("message", "") for reason in ELSEWHERE):
            continue
        count = counts[promise_of(case.get("classname", ""))]
        count[0] += any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
        count[1] += 1
    for promise, (bad, total) in counts.items():
        if promise in ON_GPU and not total:
            continue
        yield Goal(f"{promise}: tests that do not pass", bad, 0, "", of=total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="only the tests that need a GPU")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        chosen = [GPU_TESTS] if options.cuda else []
        subprocess.run([sys.executable, "-m", "pytest", "-q", "--junit-xml", report, *chosen], cwd=ROOT, check=False)
        found = [goal for goal in goals(report) if goal.of or not options.cuda]
        return leave(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
