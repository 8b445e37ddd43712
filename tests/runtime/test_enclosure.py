"""An enclosed process writes in its folder only, connects to nothing and starts no program."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, socket, sqlite3, subprocess, sys
from kbitlint.runtime.enclosure import EnclosedError, enclose
folder, outside = sys.argv[1:3]
acts = []
enclose(folder, acts.append, lambda program: program == "uname")
try:
    {code}
    print("done", acts)
except EnclosedError as error:
    print("refused", error)
"""
REFUSED = {
    "open(outside + '/x', 'w')": "write {outside}/x",
    "open(outside + '/kept', 'r+')": "write {outside}/kept",
    "os.mkdir(outside + '/x')": "write {outside}/x",
    "os.remove(outside + '/kept')": "write {outside}/kept",
    "os.rename(outside + '/kept', folder + '/x')": "write {outside}/kept",
    "os.symlink(folder, outside + '/x')": "write {outside}/x",
    "os.open(outside + '/x', os.O_CREAT | os.O_WRONLY)": "write {outside}/x",
    "sqlite3.connect(outside + '/x')": "write {outside}/x",
    "open(folder + '/out/x', 'w')": "write {folder}/out/x",
    "socket.create_connection(('127.0.0.1', 9))": "connect to 127.0.0.1",
    "socket.getaddrinfo('localhost', 80)": "connect to localhost",
    "subprocess.run(['ls'])": "start ls",
    "os.system('ls')": "start ls",
    "os.kill(os.getppid(), 0)": "signal a process",
}
ALLOWED = (
    "open(folder + '/x', 'w').close()",
    "os.makedirs(folder + '/a/b')",
    "open(outside + '/kept').read()",
    "open('/dev/null', 'w').close()",
    "subprocess.run(['uname'], stdout=-3)",
    "os.kill(os.getpid(), 0)",
    "sqlite3.connect(':memory:')",
    "socket.socketpair()",
)


@pytest.fixture
def places(tmp_path):
    folder, outside = tmp_path / "own", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (folder / "out").symlink_to(outside)
    return folder, outside


def run(code, places):
    command = [sys.executable, "-c", PROGRAM.replace("{code}", code), *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("code", REFUSED)
def test_an_act_outside_is_refused_and_changes_nothing(code, places):
    said = REFUSED[code].format(folder=places[0], outside=places[1])

    assert run(code, places) == f"refused a rehearsed script may not {said}"
    assert {path.name: path.read_text() for path in places[1].iterdir()} == {"kept": "kept"}


@pytest.mark.parametrize("code", ALLOWED)
def test_an_act_of_its_own_is_allowed(code, places):
    assert run(code, places) == "done []"


def test_a_forked_process_is_enclosed_too(places):
    code = "child = os.fork(); open((outside if not child else folder) + '/x', 'w') if not child else os.waitpid(child, 0)"

    assert "refused a rehearsed script may not write" in run(code, places)
    assert sorted(path.name for path in places[1].iterdir()) == ["kept"]
