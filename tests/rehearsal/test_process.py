"""A rehearsal runs in a process of its own: it ends at its limits, leaves nothing behind and writes nothing outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kbitlint
from kbitlint.errors import KbitlintError
from kbitlint.rehearsal import own_folder
from kbitlint.rehearsal.inside import peers
from kbitlint.runtime import landlock


@pytest.fixture
def rehearse(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def run(code, argv=(), name="train.py", **options):
        (work / name).write_text(code)
        (report,) = kbitlint.rehearse(name, argv, select="KB9", **options)
        assert [path.name for path in tmp_path.iterdir()] == ["work"], "the temporary folder is gone"
        return report

    return run


def told(report):
    return [skip.reason for skip in report.skips], [violation.message for violation in report.violations]


def test_a_script_that_never_ends_is_ended(rehearse):
    started = time.monotonic()

    report = rehearse("import time\nwhile True:\n    time.sleep(1)\n", timeout=5)

    assert told(report) == (["not rehearsed to its end: the script was not through within 5 s (--timeout)"], [])
    assert time.monotonic() - started < 60


def test_a_script_that_takes_too_much_memory_is_ended(rehearse):
    report = rehearse("held = []\nwhile True:\n    held.append(bytearray(50_000_000))\n", memory="2GB")

    assert told(report) == (["not rehearsed to its end: the script needs more than 2.0 GB of memory (--memory)"], [])


LEAVING = """
import atexit, ctypes, os, signal, sys, threading, time

def stay(clear):
    for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    if clear:
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    time.sleep(600)

if os.fork() == 0:
    stay(False)
if os.fork() == 0:  # a daemon: a session of its own, and no parent
    os.setsid()
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    if os.fork():
        os._exit(0)
    stay(True)
if ctypes.CDLL(None).fork() == 0:  # no hook of Python's runs
    os.setsid()
    stay(True)
threading.Thread(target=time.sleep, args=(600,)).start()
atexit.register(sys.exit, 3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("x" * 20_000_000)
assert sys.stdin.read() == ""
time.sleep(1)
END
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        pytest.param("print('on')", "the script ended without a training step", marks=pytest.mark.slow),
        pytest.param(
            "os._exit(0)",
            "not rehearsed to its end: its process ended with exit status 0 and no report",
            marks=pytest.mark.slow,
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "not rehearsed to its end: its process was ended by SIGKILL"),
    ],
    ids=["ends", "leaves at once", "is killed"],
)
def test_processes_that_the_script_started_end_with_it(rehearse, tmp_path, end, said):
    report = rehearse(LEAVING.replace("END", end))

    assert told(report) == ([said], [])
    running = subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in running.splitlines() if "kbitlint-rehearsal-" in line and str(tmp_path) in line] == []


HIDING = """
import ctypes, os, signal, socket, sys, time
from multiprocessing import shared_memory
libc = ctypes.CDLL(None)
top = os.path.realpath(os.path.join(os.environ["TMPDIR"], ".."))

def detach(act):
    # natively, twice, into a session of its own
    if libc.fork() == 0:
        os.setsid()
        if libc.fork():
            libc._exit(0)
        for one in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        act()
        os._exit(0)

def without_environment():
    held = ctypes.POINTER(ctypes.c_void_p).in_dll(libc, "environ")
    number = 0
    while held[number]:
        ctypes.memset(held[number], 0, len(ctypes.string_at(held[number])))
        number += 1
    libc.prctl(1, 0, 0, 0, 0)
    time.sleep(600)

def another_program():
    libc.prctl(1, 0, 0, 0, 0)
    argv = (ctypes.c_char_p * 3)(b"/bin/sleep", b"617", None)
    libc.execve(b"/bin/sleep", argv, (ctypes.c_char_p * 1)(None))

detach(without_environment)
detach(another_program)
detach(lambda: os.kill(os.getpid(), signal.SIGSTOP))
segment = shared_memory.SharedMemory(create=True, size=4096, name="kbitlint-left")
segment.buf[0] = 7
again = shared_memory.SharedMemory(name="kbitlint-left")
assert again.buf[0] == 7
memory = os.memfd_create("x")
os.write(memory, b"x" * 1000)
refused = []
for address in ("/run/docker.sock", "/var/run/dbus/system_bus_socket", "\\0abstract"):
    one = socket.socket(socket.AF_UNIX)
    try:
        one.connect(address)
    except PermissionError as error:
        refused.append(str(error))
    except OSError as error:
        refused.append("NOT REFUSED %s" % error)
assert all("may not connect to the service" in text for text in refused), refused
folder = os.getcwd()
os.chdir(os.environ["TMPDIR"])  # a whole path may be longer than an address can be
server = socket.socket(socket.AF_UNIX)
server.bind("own"); server.listen()
mine = socket.socket(socket.AF_UNIX); mine.connect("own")
os.chdir(folder)
left, right = socket.socketpair(); left.send(b"1"); assert right.recv(1) == b"1"
libc.mkdir(os.environ["TMPDIR"].encode() + b"/deep", 0o700)
here = os.open(".", os.O_RDONLY)
libc.chdir(os.environ["TMPDIR"].encode() + b"/deep")
for _ in range(1200):
    assert libc.mkdir(b"d", 0o700) == 0
    libc.chdir(b"d")
os.fchdir(here)
os.mkdir(os.environ["TMPDIR"] + "/locked")
open(os.environ["TMPDIR"] + "/locked/x", "w").close()
os.chmod(os.environ["TMPDIR"] + "/locked", 0)
libc.unlink(os.path.join(top, "output").encode())
assert libc.mkfifo(os.path.join(top, "output").encode(), 0o600) == 0
libc.symlink(b"/dev/zero", os.path.join(top, "rank-1").encode())
assert libc.chmod(b"/etc/hosts", 0o644) == -1
datagram = libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)
address = bytes([2, 0, 0, 9, 127, 0, 0, 1]) + bytes(8)
assert libc.sendto(datagram, b"x", 1, 0, address, 16) == -1
assert libc.shm_open(b"/kbitlint-native", 0o102, 0o600) >= 0
refusal = ""
for _ in range(600):
    try:
        child = os.fork()
    except PermissionError as error:
        refusal = str(error)
        break
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
assert "more than 512 processes" in refusal, refusal
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans and memory without a file are Linux's")
@pytest.mark.slow
def test_what_a_script_hides_ends_with_it(rehearse, tmp_path):
    """Processes without their environment, services, shared memory, folders without end, pipes for files, native calls."""
    report = rehearse(HIDING)

    assert report.violations == ()
    services = ("/run/docker.sock", "/var/run/dbus/system_bus_socket", "abstract")
    refused = [f"a rehearsal may not connect to the service {name}" for name in services]
    assert sorted(skip.reason.partition(": ")[2] for skip in report.skips) == sorted(
        [*refused, "a rehearsal may not start more than 512 processes"]
    )
    running = subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in running.splitlines() if line.endswith("sleep 617") or str(tmp_path) in line] == []
    left = [name for name in ("left", "native") if Path(f"/dev/shm/kbitlint-{name}").exists()]  # noqa: S108  # see above
    assert left == []


FORGED = """
import os, time
data = b"cposix\\nmkdir\\n(V{place}\\ntR."
for number in range(3, 64):
    try:
        os.write(number, len(data).to_bytes(8, "big") + data)
    except OSError:
        pass
time.sleep(60)
"""
UNNAMED = """
import os
held = []
while True:
    held.append(open("f", "wb"))
    held[-1].write(b"x" * 50_000_000)
    os.unlink("f")
"""
IN_MEMORY = """
import os
held = []
while True:
    held.append(os.memfd_create("x"))
    os.write(held[-1], b"x" * 200_000_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="see above")
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (FORGED, "the script wrote into kbitlint's own pipe (posix.mkdir)"),
        (UNNAMED, "the script writes more than 400.0 MB"),
        (IN_MEMORY, "the script needs more than 3.0 GB of memory (--memory)"),
    ],
    ids=["writes messages", "fills the disk", "fills the memory without a mapping"],
)
def test_a_script_that_works_against_its_bounds_is_ended(rehearse, tmp_path, monkeypatch, code, said):
    monkeypatch.setattr("kbitlint.rehearsal.bounds.MOST_WRITTEN", 400_000_000)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"

    report = rehearse(code.replace("{place}", str(outside)), memory="3GB")

    assert told(report) == ([f"not rehearsed to its end: {said}"], [])
    assert not outside.exists(), "kbitlint itself runs nothing that a message holds"


def test_writes_go_to_the_temporary_folder_and_are_read_back(rehearse, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    code = f"""
import json, logging, os, shutil
from pathlib import Path
import torch
os.makedirs("runs/one", exist_ok=True)
Path("runs/one/a.txt").write_text("1")
assert Path("runs/one/a.txt").read_text() == "1"
with open(__file__, "a") as file:
    file.write("# more")
torch.save(torch.ones(2), "runs/one/t.pt")
assert torch.load("runs/one/t.pt").sum() == 2
shutil.copy(__file__, "copy.py")
shutil.rmtree("runs")
assert not os.path.exists("runs")
with open({str(outside)!r} + "/x", "w") as file:
    file.write("x")
assert open({str(outside)!r} + "/x").read() == "x"
os.remove(__file__)
handle = os.open({str(outside)!r}, os.O_RDONLY)
os.close(os.open("y", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
os.mkdir("made", dir_fd=handle)
os.rename("y", "z", src_dir_fd=handle, dst_dir_fd=handle)
assert sorted(os.listdir({str(outside)!r})) == ["made", "x", "z"]
os.mkfifo({str(outside)!r} + "/fifo")
open("/dev/shm/kbitlint-x", "w").close()
"""

    report = rehearse(code)

    assert told(report) == (["the script ended without a training step"], [])
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["train.py"]
    assert (tmp_path / "work" / "train.py").read_text() == code
    assert list(outside.iterdir()) == []
    assert not Path("/dev/shm/kbitlint-x").exists()  # noqa: S108  # nothing is written there


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))\n", "a rehearsal may not connect to 127.0.0.1"),
        ("import os\nos.posix_spawn('/bin/ls', ['ls'], {})\n", "a rehearsal may not start ls"),
        ("import ctypes\nimport os\nos.kill(os.getppid(), 0)\n", "a rehearsal may not signal a process"),
        (
            "open('missing.yaml')\n",
            "a file is not here: FileNotFoundError: [Errno 2] No such file or directory: 'missing.yaml'",
        ),
        (
            "raise RuntimeError('other metadata\\nsaved: cpu\\nrecomputed: ' + \"device(type='meta')\")\n",
            "it needs values, which a model without weights lacks: RuntimeError: other metadata",
        ),
        ("import os\nos.environ['NO_SUCH_NAME']\n", "the environment variable 'NO_SUCH_NAME' is not set here"),
        (
            "import transformers\ntransformers.AutoConfig.from_pretrained('somebody/unheard-of')\n",
            "the config of somebody/unheard-of is neither on this machine nor in the table of families",
        ),
        ("open('big', 'w').truncate(5 * 2**30)\n", "its process may not do that"),
        pytest.param(
            "import pyarrow\npyarrow.OSFile('/var/x', 'wb')\n",
            "its process may not do that",
            marks=pytest.mark.skipif(not landlock.version(), reason="the kernel has no Landlock"),
        ),
    ],
)
def test_what_only_a_rehearsal_has_is_a_skip_with_its_line(rehearse, code, reason):
    report = rehearse(code)

    assert report.violations == ()
    assert any(reason in skip.reason for skip in report.skips), told(report)
    line = len(code.splitlines())
    assert any(f"train.py:{line}: not rehearsed from here on" in skip.reason for skip in report.skips), told(report)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("code", "message", "line"),
    [
        ("import transformers\nfrom transformers import NoSuchName\n", "ImportError: cannot import name 'NoSuchName'", 2),
        ("def f():\n    return undefined\n\n\nf()\n", "NameError: name 'undefined' is not defined", 2),
        ("import sys\nsys.exit(3)\n", "SystemExit: exit status 3", 2),
        ("x = (\n", "SyntaxError", 1),
        ("class E(Exception):\n    def __str__(self):\n        raise TypeError\n\n\nraise E\n", "raises E before", 6),
        ("raise ValueError('\\ud800 \\x00')\n", "ValueError: ? \x00", 1),
    ],
)
def test_an_exception_of_the_script_is_a_violation_at_its_line(rehearse, code, message, line):
    report = rehearse(code)

    (violation,) = report.violations
    assert (violation.code, violation.at.file, violation.at.line) == ("KB901", "train.py", line)
    assert message in violation.message


@pytest.mark.usefixtures("forked")
def test_wrong_arguments_are_one_line(rehearse):
    code = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.parse_args()
"""

    with pytest.raises(KbitlintError) as refused:
        rehearse(code)

    assert str(refused.value) == (
        "train.py: takes other arguments: the following arguments are required: --model; give them after the script"
    )


def test_arguments_folder_and_environment_are_those_of_a_real_run(rehearse, monkeypatch):
    monkeypatch.setenv("SEED", "7")
    code = """
import os, sys
assert sys.argv == ["train.py", "--a", "b c"], sys.argv
assert __name__ == "__main__" and os.path.basename(__file__) == "train.py"
assert os.environ["SEED"] == "7"
assert sys.path[0] == os.path.dirname(os.path.abspath(__file__))
assert os.path.samefile(os.getcwd(), sys.path[0])
import torch
assert torch.cuda.is_available() and torch.cuda.get_device_capability() == (7, 5)
assert not torch.cuda.is_bf16_supported(including_emulation=False)
assert torch.ones(2, device="cuda").to("cuda:0").cuda().sum().item() == 2
"""

    report = rehearse(code, ("--a", "b c"), device_like="t4")

    assert told(report) == (["the script ended without a training step"], [])


@pytest.mark.usefixtures("forked")
def test_a_notebook_is_rehearsed_without_its_magics(rehearse):
    import json

    cells = ["%pip install -q trl\n!nvidia-smi\nimport torch", "assert torch.cuda.is_available()\nundefined"]
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": one} for one in cells
        ],
    }

    report = rehearse(json.dumps(notebook), name="lab.ipynb")

    (violation,) = report.violations
    assert violation.message == "the script raises NameError: name 'undefined' is not defined before the first training step"
    assert str(violation.at) == "lab.ipynb:2 cell 2"


@pytest.mark.slow
def test_ranks_of_a_launcher_end_with_the_rehearsal(rehearse, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "PATIENCE", 3.0)
    (tmp_path / "work" / "train.py").write_text("import os, time\nif os.environ['RANK'] != '0':\n    time.sleep(600)\n")

    (report,) = kbitlint.rehearse("torchrun --nproc_per_node 3 train.py", select="KB9")

    assert told(report) == ([f"rank {rank} was ended 3 s after rank 0, in line 3" for rank in (1, 2)], [])
    assert "rehearsed on 3 ranks" in report.notes
    running = subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert [line for line in running.splitlines() if str(tmp_path) in line] == []


def test_no_run_refuses(rehearse):
    report = rehearse("raise SystemExit(1)\n", run=False)

    assert (report.summary, told(report)) == ("not run", (["scripts are not run (--no-run)"], []))


@pytest.mark.parametrize(("option", "value"), [("device_like", "v100"), ("timeout", 0), ("rows", -1), ("memory", "much")])
def test_a_wrong_option_is_one_line(rehearse, option, value):
    with pytest.raises(KbitlintError, match=option):
        rehearse("", **{option: value})


def test_the_command_line_rehearses_and_leaves_with_1(tmp_path):
    (tmp_path / "train.py").write_text("from transformers import NoSuchName\n")
    command = [str(Path(sys.executable).parent / "kbitlint"), "rehearse", "--", "python", "train.py"]

    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"}
    )

    assert done.returncode == 1, done.stderr
    assert "KB901 script-raises-before-training" in done.stdout
    assert "    train.py:1\n" in done.stdout


@pytest.mark.slow
def test_check_rehearses_the_scripts_that_the_project_lists(tmp_path):
    (tmp_path / "train.py").write_text("import sys\nfrom transformers import NoSuchName\n")
    (tmp_path / "pyproject.toml").write_text('[tool.kbitlint]\nrehearse = ["train.py --a 1"]\n')
    command = [str(Path(sys.executable).parent / "kbitlint"), "check"]

    done = [
        subprocess.run([*command, *further], cwd=tmp_path, capture_output=True, text=True, check=False)
        for further in ((), ("--no-run",), ("train.py",))
    ]

    assert [one.returncode for one in done] == [1, 2, 0]
    assert done[0].stderr == "kbitlint: running train.py --a 1, named by pyproject.toml\n"
    assert "    train.py:2\n" in done[0].stdout
    assert "scripts are not run (--no-run)" in done[1].stdout
    assert "nothing was checked" in done[1].stderr
    assert "KB901" not in done[2].stdout, "a script that is named without its arguments is read only"


LEFT = """
import os, sys, time
import kbitlint
print(os.getpid(), flush=True)
kbitlint.rehearse("train.py", timeout=300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at the death of a parent is Linux's")
@pytest.mark.slow
def test_a_rehearsal_whose_parent_is_killed_ends_and_is_cleaned_up_by_the_next_one(rehearse, tmp_path):
    work = tmp_path / "work"
    (work / "train.py").write_text("import os, time\nos.fork()\nopen('on', 'w').close()\ntime.sleep(300)\n")
    parent = subprocess.Popen([sys.executable, "-c", LEFT], cwd=work, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("kbitlint-rehearsal-*/root/**/on")) and time.monotonic() < deadline:
        time.sleep(0.2)
    (left,) = tmp_path.glob("kbitlint-rehearsal-*")

    parent.kill()
    parent.wait()

    def running():
        lines = subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in lines if str(left) in line]

    while running() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert running() == [], "the process of the rehearsal, and the one that it forked"
    assert left.exists()
    rehearse("print('next')\n")  # it asserts that nothing is left


def test_a_folder_of_a_running_rehearsal_and_one_without_a_lock_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "kbitlint-rehearsal-other").mkdir()
    with own_folder.made() as first, own_folder.made() as second:
        assert Path(first).is_dir()
        assert Path(second).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["kbitlint-rehearsal-other"]
