"""Many targets at once, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from kbitlint.errors import KbitlintError
from kbitlint.jobs.server import audit_many
from kbitlint.report import Report
from kbitlint.result import Failure
from kbitlint.runtime import process_memory
from kbitlint.sizes import size_of

pytestmark = pytest.mark.usefixtures("preloaded")

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

    results = audit_many([f"train.py:{name}" for name in names], {"trace": False}, jobs=2, timeout=10)

    assert [type(result) for result in results] == [Report, Failure, Failure, Failure, Failure, Report]
    assert [result.error for result in results if isinstance(result, Failure)] == [
        "train.py:dies: its process was ended by SIGKILL",
        "train.py:leaves: its process ended with exit status 7 and no report",
        "train.py:hangs: was not finished within 10 s (--target-timeout)",
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
    result = run("check", "train.py:hangs", "--target-timeout", "2")

    assert (result.exit_code, result.stderr) == (
        2,
        "kbitlint: train.py:hangs: was not finished within 2 s (--target-timeout)\n",
    )


def test_jobs_do_not_fix(run):
    result = run("--fix", "plants:clean", "--jobs", "2")

    line = "--jobs, --target-timeout and --target-memory audit; they cannot be used with --fix"
    assert (result.exit_code, line in result.stderr) == (2, True)


# ------------------------------------------------------------------------------- what the code of a target starts


STARTING = """
import multiprocessing, os, subprocess, sys, time
import tiny


def forks():
    if os.fork() == 0:
        print("a child that goes on as if it were the audit")
    return tiny.prepared()


def leaves_processes():
    for place, start in (("left", False), ("escaped", True)):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=start)
        open(place, "w").write(str(child.pid))
    return tiny.prepared()


def dies_with_children():
    leaves_processes()
    os.kill(os.getpid(), 9)


def maps_a_dataset():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    return tiny.prepared()


def eats():
    kept = []
    for _ in range(3000):
        kept.append(bytearray(os.urandom(1)) * 10_000_000)
        time.sleep(0.001)
    return tiny.prepared()


def feeds_children():
    code = "import time; kept = bytearray(b'1') * 600_000_000; time.sleep(600)"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    time.sleep(600)
"""


@pytest.fixture
def starting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.py").write_text(STARTING)
    return tmp_path


def is_running(process):
    try:
        return (Path("/proc") / process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_that_a_factory_forks_audits_nothing(starting):
    for results in (
        audit_many(["start.py:forks"], {"trace": False}, timeout=60),
        subprocess.run(
            [sys.executable, "-m", "kbitlint", "check", "start.py:forks", "--no-trace", "--format", "json"],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")},
        ),
    ):
        if isinstance(results, list):
            assert [type(result) for result in results] == [Report]
        else:
            assert (len(json.loads(results.stdout)["targets"]), results.returncode) == (1, 0)
            assert "a child that goes on" in results.stderr


@pytest.mark.parametrize("name", ["leaves_processes", "dies_with_children"])
def test_what_a_factory_starts_ends_with_its_target(starting, name):
    (result,) = audit_many([f"start.py:{name}"], {"trace": False}, timeout=60)

    assert isinstance(result, Report) == (name == "leaves_processes")
    deadline = time.monotonic() + 10
    left = [(starting / "left").read_text()]
    if name == "leaves_processes":  # its parent lives until its report is there
        left.append((starting / "escaped").read_text())
    while any(map(is_running, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [is_running(process) for process in left] == [False] * len(left)
    for place in ("left", "escaped"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((starting / place).read_text()), signal.SIGKILL)


def test_a_factory_may_start_processes(starting):
    (result,) = audit_many(["start.py:maps_a_dataset"], {"trace": False}, timeout=60)

    assert isinstance(result, Report)


@pytest.mark.parametrize("name", ["eats", "feeds_children"])
def test_a_target_that_needs_more_memory_than_it_is_given_costs_only_itself(starting, run, name):
    result = run("check", f"start.py:{name}", "plants:clean", "--target-memory", "1.2GB", "--no-trace", "--format", "json")

    assert [target["target"] for target in json.loads(result.stdout)["targets"]] == ["plants:clean"]
    line = f"start.py:{name}: needs more than 1.2 GB of memory (--target-memory)"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"kbitlint: {line}")


def test_targets_end_when_the_process_that_waits_for_them_is_killed(starting):
    (starting / "wait.py").write_text(
        "import os, time\ndef waits():\n    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-m", "kbitlint", "check", "wait.py:waits", "--target-timeout", "600"]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not ((starting / "pid").exists() and (starting / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    target = (starting / "pid").read_text()
    assert is_running(target)
    process.kill()
    process.wait()
    while is_running(target) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert not is_running(target)


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("8 gib", 8 * 2**30), ("1.5M", 1_500_000), ("512mb", 512 * 10**6), ("77", 77)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GB", "GB", "1PB", "0.0001", "1e9", "\x1b[31m"])
def test_what_is_no_size_is_a_usage_error(run, text):
    result = run("check", "plants:clean", "--target-memory", text)

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"Error: Invalid value for '--target-memory': {text!r} is no size; write 8GB, 512MiB or a number of bytes"
    )


def test_where_nothing_can_be_counted_it_is_said(monkeypatch):
    monkeypatch.setattr(process_memory, "can_be_counted", lambda: False)

    with pytest.raises(KbitlintError, match="--target-memory needs Linux, or psutil elsewhere"):
        audit_many(["plants:clean"], {}, memory=1)
