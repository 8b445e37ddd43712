"""Many targets at once, each in a process of its own."""

from __future__ import annotations

import json

import pytest
import tiny

from kbitlint.jobs import audit_many
from kbitlint.violation import Failure, Report

pytestmark = pytest.mark.slow

FACTORIES = """
import os, signal, sys, time
import tiny


def good():
    print("a factory that prints")
    return tiny.prepared()


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def leaves():
    os._exit(7)


def hangs():
    time.sleep(600)


def wrong():
    return 3
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(FACTORIES)
    return tmp_path


def test_a_crash_and_a_hang_cost_only_their_target(train):
    names = ["good", "dies", "leaves", "hangs", "wrong", "good"]

    results = audit_many([f"train.py:{name}" for name in names], {"trace": False}, jobs=2, timeout=20)

    assert [type(result) for result in results] == [Report, Failure, Failure, Failure, Failure, Report]
    assert [result.error for result in results if isinstance(result, Failure)] == [
        "train.py:dies: its process was ended by SIGKILL",
        "train.py:leaves: its process ended with exit status 7 and no report",
        "train.py:hangs: was not finished within 20 s (--target-timeout)",
        "train.py:wrong: the factory returned a int; it must return a model or a Trainer",
    ]
    assert [result.target for result in results] == [f"train.py:{name}" for name in names]


def test_the_command_line_reports_what_is_left_and_leaves_with_2(train, run):
    (train / "train.py").write_text(FACTORIES)

    result = run("check", "train.py:good", "train.py:dies", "--jobs", "2", "--format", "json", "--no-trace")

    document = json.loads(result.stdout)
    assert result.exit_code == 2
    assert [target["target"] for target in document["targets"]] == ["train.py:good"]
    assert document["failures"] == [
        {"target": "train.py:dies", "error": "train.py:dies: its process was ended by SIGKILL"},
    ]
    assert result.stderr == "kbitlint: train.py:dies: its process was ended by SIGKILL\n"


def test_reports_are_those_of_one_process_in_the_order_of_the_targets(train):
    import kbitlint

    folders = [str(tiny.checkpoint()), "plants:unprepared", str(tiny.checkpoint())]

    results = audit_many(folders, {"trace": False, "quantize": "nf4"}, jobs=3)

    assert results == [kbitlint.check(folder, trace=False, quantize="nf4") for folder in folders]


def test_one_target_with_a_timeout_is_isolated_too(train, run):
    result = run("check", "train.py:hangs", "--target-timeout", "8")

    assert (result.exit_code, result.stderr) == (
        2,
        "kbitlint: train.py:hangs: was not finished within 8 s (--target-timeout)\n",
    )


def test_jobs_do_not_fix(run):
    result = run("--fix", "plants:clean", "--jobs", "2")

    assert (result.exit_code, "--jobs and --target-timeout audit; they cannot be used with --fix" in result.stderr) == (2, True)
