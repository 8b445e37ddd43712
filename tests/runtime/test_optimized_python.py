"""``python -OO`` and ``PYTHONOPTIMIZE=2`` change no report, no document and no help."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from kbitlint.output import formats
from kbitlint.runtime.optimized_python import _without_stripping

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "data" / "scripts" / "accelerate_loop_reentrant.py"
WAYS = {"-OO": (["-OO"], {}), "PYTHONOPTIMIZE": ([], {"PYTHONOPTIMIZE": "2"}), "-sOO": (["-sOO", "-X", "utf8"], {})}


def run(*command, flags=(), cwd=None, **environment):
    ended = subprocess.run(
        [sys.executable, *flags, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support"), "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


plainly = functools.cache(run)


def both(way, *command, **further):
    flags, environment = WAYS[way]
    return plainly(*command, **further), run(*command, flags=flags, **environment, **further)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("arguments", ["rules", "explain KB101", "explain incomplete-quantization-state", "check --help"])
def test_documents_and_help_are_the_same(arguments, way):
    plain, stripped = both(way, "-m", "kbitlint", *arguments.split())

    assert (plain[0], plain[2], len(plain[1]) > 500) == (0, "", True)
    assert stripped == plain


@pytest.mark.parametrize("format_", formats.NAMES)
def test_the_report_of_a_script_is_the_same(format_):
    plain, stripped = both("-OO", "-m", "kbitlint", "check", SCRIPT, "--format", format_)

    assert (plain[0], plain[2]) == (1, "")
    assert stripped == plain


@pytest.mark.parametrize("way", ["-OO", pytest.param("PYTHONOPTIMIZE", marks=pytest.mark.slow)])
def test_the_report_of_a_checkpoint_is_the_same(way):
    target = tiny.checkpoint()
    arguments = ("check", target.name, "--quantize", "nf4", "--format", "json", "--verbose")
    plain, stripped = both(way, "-m", "kbitlint", *arguments, cwd=target.parent)

    assert plain[0] == 1
    seconds = [[line for line in out.splitlines() if "seconds" not in line] for _, out, _ in (plain, stripped)]
    assert seconds[0] == seconds[1]
    assert stripped[0] == plain[0]


LIVE = """
import sys, torch, bitsandbytes, kbitlint
from kbitlint import registry, rule_docs
from kbitlint.output import json, sarif
torch.manual_seed(0)
model = torch.nn.Sequential(bitsandbytes.nn.Linear4bit(64, 64, compute_dtype=torch.bfloat16), torch.nn.LayerNorm(64)).bfloat16()
model = model.to("cpu")
reports = [kbitlint.check(model), kbitlint.check(model, plan=True), kbitlint.fix(model, unsafe=True), kbitlint.check(model)]
print(kbitlint.undo(model), json.render(reports), sarif.render(reports), *map(rule_docs.explain, registry.all_rules()))
try:
    kbitlint.assert_ready(model, fail_on="warning")
except AssertionError as error:
    print(error)
"""


@pytest.mark.slow
def test_reports_of_a_live_model_and_every_document_are_the_same_in_a_process_of_ones_own():
    plain, stripped = both("-OO", "-W", "ignore", "-c", LIVE)

    assert (plain[0], "Why is this bad?" in plain[1], "KB101" in plain[1]) == (0, True, True), plain[2]
    told = [[line for line in out.splitlines() if "seconds" not in line] for _, out, _ in (plain, stripped)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["-OO", "-m", "kbitlint", "check", "-OO"], ["-m", "kbitlint", "check", "-OO"]),
        (["-sOO", "-W", "ignore", "/bin/kbitlint", "-O"], ["-s", "-W", "ignore", "/bin/kbitlint", "-O"]),
        (["-X", "O", "-O", "-O", "-c", "-OO"], ["-X", "O", "-c", "-OO"]),
        (["-WOO", "--check-hash-based-pycs", "-m", "x"], ["-WOO", "--check-hash-based-pycs", "-m", "x"]),
        ([], []),
    ],
)
def test_only_the_interpreters_own_options_are_changed(given, kept):
    assert _without_stripping(given) == kept
