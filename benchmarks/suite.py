"""Promises that tests assert: each with its test files, and with the number of tests that fail.

    python -m benchmarks.suite [--cuda] [--json FILE]

The benchmark runs the whole test suite once. A skipped test proves nothing, so it counts as a failure. Tests of another
version of transformers are left out; ``make test-oldest`` runs them. So are those that need a GPU; ``--cuda`` runs them alone.
The exit code is 1 if a test does not pass.
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
#: promise -> the test files that assert it
PROMISES = {
    "planted faults are named exactly, fixed, and training proves it": ("test_main_job", "test_families"),
    "every rule: what it flags, what it does not, its fix": ("test_rules_meta", "rules/"),
    "80 and 33 root causes, by id": (
        *("test_model_causes", "test_file_causes", "test_rank_causes"),
        *("test_gradient_causes", "test_layer_causes", "test_folder_causes"),
    ),
    "norms of 601 classes, labelled by hand": ("test_norms", "test_norm_list"),
    "the trace leaves the model as it is, and says what it cannot trace": (
        *("test_trace", "test_twin", "test_kernel_dtypes", "test_traced_operators", "test_trainer_loss"),
    ),
    "the memory table, and what fits a card": (
        *("test_memory", "test_memory_of_like_layers", "test_step_bytes", "test_step_settings", "test_fit"),
        *("test_live_losses", "test_timeline", "test_memory_benchmarks", "test_passes", "test_tensor_parallel"),
    ),
    "an error of a step is one of training, seen on a small copy": ("test_small_copy",),
    "diffusion models and plain modules": (
        *("test_diffusion", "test_plain_modules", "test_undocumented_inputs", "test_fitted_batches"),
    ),
    "a rehearsal ends as the real run does, in its enclosure": (
        *("test_command", "test_process", "test_folders", "test_stand_ins", "test_enclosure", "test_task_limit", "test_inbox"),
        *("test_what_is_not_here", "test_repair", "test_public_rehearsals", "test_measured"),
    ),
    "edits: all or nothing, undone bit for bit": ("test_edits", "test_fixed_models"),
    "folders: fixed, loaded again, trained": ("test_checkpoint_folder", "test_experts"),
    "wrapped models get the verdict of the bare one": ("test_wrappers", "test_quantized"),
    "a sample of real steps against verdicts": ("test_truth",),
    "scripts, notebooks, configurations": (
        *("test_documents", "test_interpreter", "test_scripts", "test_configs", "test_programs", "test_exports"),
        *("test_expert_scripts", "test_checkpoint_families", "test_imported_files", "test_trl_versions", "test_source_folder"),
        *(
            "test_launches",
            "test_loaded_values",
            "test_own_loops",
            "test_data_flow",
            "test_snapshots",
            "test_cache",
            "test_paths",
            "test_stored_adapters",
        ),
    ),
    "what constructors refuse, against the installed libraries": (
        *("test_contracts", "test_program_contracts", "test_pipeline_contracts", "test_signatures", "test_quantization"),
        *("test_model_types", "test_called_back"),
    ),
    "time and memory that grow with a file as the file does": ("test_growth",),
    "live models of every kind, in the modes of any caller": (
        *("test_isolation", "test_odd_models", "test_optimizers"),
        "test_shared_state",
    ),
    "targets: Hub, factories, remote code": ("test_hub", "test_factories", "test_build"),
    "several ranks, several kinds of device: verdict = outcome": (
        *("test_ranks", "test_context", "test_torchrun", "test_records", "test_devices"),
    ),
    "the callback in real Trainers, and its counterparts": (
        "test_trainer",
        "test_trl",
        "test_watch",
        "test_frameworks",
        "test_trainers",
    ),
    "the whole life of a run: what targets cover, what versions allow, what was merged": (
        *("test_coverage", "test_env", "test_merged"),
    ),
    "reports: text, JSON, SARIF, GitHub, JUnit": ("test_formats", "test_text", "test_physical_places", "test_excerpts"),
    "editors, notebooks, CI, the shell": (
        *("test_lsp", "test_notebook", "test_published", "test_conventions", "test_automation"),
    ),
    "messages, logs and trainer states explained": ("test_diagnosis",),
    "the page, in a browser": ("test_page",),
    "bad and hostile input: one line, exit code 2": (
        *("test_bad_input", "test_hostile", "test_terminal", "test_exits", "test_patterns", "test_other_systems"),
    ),
    "what is executed, read and written, by kind of target": (
        "test_security",
        "test_confinement",
        "test_content",
        "test_import_state",
        "test_reach",
    ),
    "projects: configuration, suppressions, init, rule packs": (
        "test_config",
        "test_suppress",
        "test_init",
        "test_testing",
        "test_registry",
    ),
    "many targets at once": ("test_jobs", "test_preloaded"),
    "threads, processes, large tensors, the same bytes again": ("test_concurrency", "test_large", "test_reproducible"),
    "files are written whole or not at all": ("test_atomic",),
    "the package, and what its start takes": (
        *("test_packaging", "test_imports", "test_extension", "test_optimized_python", "test_documentation"),
        *("test_lazy_dataclass", "test_distributions"),
    ),
    "batches and benchmarks": ("test_batch", "test_benchmarks", "test_robustness"),
    "what is said of CUDA, on a GPU": ("test_cuda",),
}
#: the promises whose tests need a GPU, and the folder of those tests
ON_GPU, GPU_TESTS = ("what is said of CUDA, on a GPU",), ROOT / "tests" / "model" / "test_cuda.py"
#: parts of the reasons for which pytest skips a test that another run holds
ELSEWHERE = ("transformers", "needs a GPU")


def promise_of(module: str) -> str:
    """Return the promise of a test module, which is named by its dotted path.

    Raises:
        SystemExit: If no promise lists the module.
    """
    parts = module.split(".")
    name = "rules/" if "rules" in parts else next((part for part in parts if part.startswith("test_")), "")
    for promise, files in PROMISES.items():
        if name in files:
            return promise
    raise SystemExit(f"{module} is of no promise in {__file__}")


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
