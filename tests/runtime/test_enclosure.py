"""An enclosed process writes in its folder only, connects to nothing and starts no program."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from kbitlint.runtime import landlock

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
    "sqlite3.connect('file:' + outside + '/x?mode=rwc', uri=True)": "write {outside}/x",
    "os.chmod(os.open(outside + '/kept', os.O_RDONLY), 0)": "write {outside}/kept",
    "os.utime(os.open(outside + '/kept', os.O_RDONLY), (1, 1))": "write {outside}/kept",
    "os.chdir(outside); open('/proc/self/cwd/x', 'w')": "write /proc/self/cwd/x",
    "open('/proc/self/root' + outside + '/x', 'w')": "write /proc/self/root{outside}/x",
    "held = os.open(outside + '/kept', os.O_RDONLY); open(f'/proc/self/fd/{held}', 'w')": "write /proc/self/fd/",
    "socket.socket(socket.AF_UNIX).bind(outside + '/x')": "write {outside}/x",
    "open('/dev/shm/kbitlint-x', 'w')": "write /dev/shm/kbitlint-x",
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
    "sqlite3.connect('')",
    "sqlite3.connect('file:x?mode=memory&cache=shared', uri=True) if os.chdir(folder) is None else None",
    "socket.socket(socket.AF_UNIX).bind(folder + '/socket')",
    "__import__('multiprocessing').Lock()",
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


def run(code, places, *, check=True):
    command = [sys.executable, "-c", PROGRAM.replace("{code}", code), *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "" or not check
    return done.stdout.strip()


@pytest.mark.parametrize("code", REFUSED)
def test_an_act_outside_is_refused_and_changes_nothing(code, places):
    said = REFUSED[code].format(folder=places[0], outside=places[1])

    assert run(code, places).startswith(f"refused a rehearsed script may not {said}")
    assert {path.name: path.read_text() for path in places[1].iterdir()} == {"kept": "kept"}


@pytest.mark.parametrize("code", ALLOWED)
def test_an_act_of_its_own_is_allowed(code, places):
    assert run(code, places) == "done []"


#: acts of native code, of which Python raises no event
NATIVE = (
    "library.open((outside + '/x').encode(), os.O_CREAT | os.O_WRONLY, 0o600)",
    "library.unlink((outside + '/kept').encode())",
    "library.truncate((outside + '/kept').encode(), 0)",
    "library.mkdir((outside + '/x').encode(), 0o700)",
    "library.rename((outside + '/kept').encode(), (folder + '/x').encode())",
    "library.link((outside + '/kept').encode(), (folder + '/x').encode())",
    "library.symlink(folder.encode(), (outside + '/x').encode())",
    "library.mkfifo((outside + '/x').encode(), 0o600)",
    "library.system(f'touch {outside}/x'.encode())",
    "library.kill(os.getppid(), 0)",
    "os.mknod(outside + '/x')",
    "sqlite3.connect(':memory:').execute('attach ? as other', (outside + '/x',))",
    "sqlite3.connect(':memory:').execute('vacuum into ?', (outside + '/x',))",
)
CONNECT = """
    port = int(os.environ["PORT"])
    address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton("127.0.0.1"))
    client = socket.socket()
    print(library.connect(client.fileno(), address, 16), os.strerror(ctypes.get_errno()))
"""


@pytest.mark.skipif(landlock.version() < 6, reason="the kernel is older than Linux 6.12, and holds native code in part or not")
@pytest.mark.parametrize("code", NATIVE)
def test_native_code_is_refused_by_the_system(code, places):
    tried = f"import ctypes; library = ctypes.CDLL(None)\n    print('result', {code})"

    said = run(tried, places, check=False)

    assert said.partition("\n")[0] in ("result -1", "result 256", ""), "it fails, or raises an exception of its own"
    assert {path.name: path.read_text() for path in places[1].iterdir()} == {"kept": "kept"}


@pytest.mark.skipif(landlock.version() < 4, reason="the kernel is older than Linux 6.7, and knows no right to connect")
def test_native_code_connects_to_nothing(places, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PORT", str(server.getsockname()[1]))

        assert "-1 Permission denied" in run(
            f"import ctypes, struct; library = ctypes.CDLL(None, use_errno=True){CONNECT}", places
        )


def test_a_forked_process_is_enclosed_too(places):
    code = "child = os.fork(); open((outside if not child else folder) + '/x', 'w') if not child else os.waitpid(child, 0)"

    assert "refused a rehearsed script may not write" in run(code, places)
    assert sorted(path.name for path in places[1].iterdir()) == ["kept"]
