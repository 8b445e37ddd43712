"""What other systems lack: no ``/proc``, no way to replace an open file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.jobs.server import audit_many
from kbitlint.rehearsal import run as rehearsals
from kbitlint.runtime import process_memory, processes

HELD = 64 * 2**20


@pytest.fixture
def without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(process_memory, "_PROC", tmp_path / "nowhere")


@pytest.fixture
def child():
    """Start a process that holds memory, in a process of its own, and return the outer one."""
    inner = f"import time; held = bytearray({HELD}); print('ready', flush=True); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    processes.end_family(process.pid, lambda: process.poll() is None and (process.kill() or True))
    process.wait()


def test_psutil_counts_what_proc_counts(child, without_proc):
    assert process_memory.can_be_counted()
    assert len(process_memory.family(child.pid)) == 2
    assert HELD < process_memory.held_by(child.pid) < 4 * HELD


def test_psutil_ends_a_family(child, without_proc):
    family = process_memory.family(child.pid)

    processes.end_family(child.pid, lambda: child.poll() is None and (child.kill() or True))
    child.wait()

    assert len(family) == 2
    assert child.stdout.read() == ""  # the inner process held the pipe open


def test_without_either_a_limit_on_memory_is_refused_in_one_line(without_proc, monkeypatch):
    monkeypatch.setattr(process_memory, "find_spec", lambda _: None)

    with pytest.raises(KbitlintError, match=r"^--target-memory needs Linux, or psutil elsewhere: pip install \S+$"):
        audit_many(["x.py"], {}, memory=2**30)
    assert process_memory.family(os.getpid()) == [os.getpid()]
    assert process_memory.held_by(os.getpid()) == 0


def test_a_file_is_closed_before_it_is_replaced_where_it_must_be(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_REPLACES_OPEN", False)
    opened = []
    monkeypatch.setattr(atomic.os, "fdopen", lambda *given, keep=os.fdopen: opened.append(keep(*given)) or opened[-1])
    closed = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: closed.append(opened[-1].closed) or replace(self, to))
    file = tmp_path / "config.json"
    file.write_text("old")

    atomic.replace(file, b"new")

    assert (closed, file.read_bytes(), list(tmp_path.iterdir())) == ([True], b"new", [file])


def test_a_rehearsal_on_windows_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("print()\n")
    monkeypatch.setattr(rehearsals, "sys", type("Windows", (), {"platform": "win32"}))

    with pytest.raises(KbitlintError, match=r"^rehearsals need Linux or macOS"):
        rehearsals.run([str(tmp_path / "train.py")], rehearsals.Rehearsal(), {})


def test_a_signal_without_a_name_is_told_by_its_number():
    assert processes.ending(-signal.SIGTERM) == "was ended by SIGTERM"
    assert processes.ending(-35) == "was ended by signal 35"
    assert processes.ending(3) == "ended with exit status 3 and no report"
