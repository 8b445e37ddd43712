"""No process that kbitlint starts imports from where a stranger puts files, and none outlives it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from benchmarks.robustness import reach
from benchmarks.robustness.trials import Tally
from kbitlint.jobs.server import audit_many
from kbitlint.report import Report
from kbitlint.runtime import import_paths, processes


@pytest.mark.slow
def test_no_module_beside_a_target_is_imported():
    """Every name that an audit of a checkpoint imports or tries to, the standard library's and others'."""
    tally = Tally("paths", "")

    reach.paths(tally, quick=True)

    assert tally.lost == []
    assert tally.tried > 1000
    assert {"torch", "transformers", "json", "socket", "multiprocessing", "pickle", "click"} <= set(
        reach.imported(str(tiny.checkpoint()))
    )


def test_a_canary_that_is_imported_is_seen(tmp_path):
    canary = reach.plant(tmp_path, ("json", "colorsys"))

    subprocess.run([sys.executable, "-c", "import json, colorsys"], cwd=tmp_path, check=True)

    assert canary.read_text().split() == ["json", "colorsys"]


@pytest.mark.slow
def test_where_nothing_can_be_forked_the_interpreters_that_are_started_are_isolated(tmp_path, monkeypatch):
    canary = reach.plant(tmp_path, reach.imported(str(tiny.checkpoint())))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "can_fork", lambda: False)

    (result,) = audit_many([str(tiny.checkpoint())], {"quantize": "nf4", "trace": False})

    assert isinstance(result, Report)
    assert not canary.exists()


@pytest.mark.parametrize("entry", ["", ".", "sub/..", "{here}", "{here}/sub/../", "link"])
def test_every_way_to_write_a_folder_is_known(tmp_path, monkeypatch, entry):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)

    kept = import_paths.without([entry.format(here=tmp_path), "sub", "/usr/lib"], import_paths.reached_by(()))

    assert kept == [str(tmp_path / "sub"), "/usr/lib"]


@pytest.mark.parametrize(
    "target", ["sub/train.py", "sub/train.py:build", "sub", "sub/none.py", "a.b:build", "", "\0", "x" * 5000]
)
def test_the_folder_of_a_target_is_known(tmp_path, monkeypatch, target):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "train.py").touch()
    monkeypatch.chdir(tmp_path)

    found = set(import_paths.reached_by([target]))

    assert found == {str(tmp_path)} | (
        {str(tmp_path / "sub")} if target in ("sub/train.py", "sub/train.py:build", "sub") else set()
    )


def test_what_the_installation_names_stays_on_the_path(tmp_path, monkeypatch):
    """An entry behind the standard library comes from site-packages and its .pth files."""
    monkeypatch.chdir(tmp_path)
    before = [str(tmp_path), *sys.path, str(tmp_path)]
    monkeypatch.setattr(sys, "path", list(before))

    with import_paths.closed_to(import_paths.reached_by(())):
        inside = list(sys.path)

    assert (inside, sys.path) == (before[1:], before)


def test_an_installed_package_as_a_target_leaves_its_neighbours_importable():
    """The processes of a sweep import PyYAML, which may lie beside the package that they read."""
    package = Path(pytest.__file__).parent
    installed = [entry for entry in sys.path if entry and Path(entry).resolve() == package.parent.resolve()]

    assert set(installed) <= set(import_paths.without(sys.path, import_paths.reached_by([str(package)])))
    assert installed


# -------------------------------------------------------------------------------------------------- stopped runs


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("after", [0.6, 0.9])
def test_a_sweep_that_is_stopped_leaves_no_process_and_no_pipe(tmp_path, kind, after):
    (tmp_path / "many").mkdir()
    for number in range(1200):
        shutil.copy(reach.SCRIPT, tmp_path / "many" / f"m{number}.py")

    assert reach.stopped(tmp_path, ("check", "many"), kind, after) == []


def test_a_process_that_is_left_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "COMMAND", "sh")

    problems = reach.stopped(tmp_path, ("-c", "sleep 60 & sleep 60"), signal.SIGKILL, 0.3, patience=1)

    assert problems[0] == "a process holds its output"
    assert "is left" in problems[1]


def test_the_reports_of_a_sweep_are_those_of_one_process(tmp_path, run, monkeypatch):
    for number in range(100):
        shutil.copy(reach.SCRIPT, tmp_path / f"m{number}.py")
    (tmp_path / "broken.py").write_text("# load_in_4bit bitsandbytes peft\ndef (\n")
    in_parallel = run("check", ".", "--format", "json")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    alone = run("check", ".", "--format", "json")

    assert (in_parallel.exit_code, in_parallel.stdout) == (alone.exit_code, alone.stdout)
