"""Nothing but a regular file is opened for reading, and no more of it is read than can be meant."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest
from script_cases import SCRIPT

import kbitlint
from kbitlint.errors import TargetError
from kbitlint.runtime import content
from kbitlint.target import parse

KINDS = {"pipe": "a named pipe", "socket": "a socket", "device": "a device", "endless": "a device"}
ROOT = Path(kbitlint.__file__).parent


def make(kind, path):
    """Something that is no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        bound = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket may be 107 bytes long
        bound.bind(path.name)
        os.chdir(here)
    else:
        path.symlink_to("/dev/null" if kind == "device" else "/dev/zero")


_SEEN = None


def _see(event, arguments):
    if event == "open" and _SEEN is not None and isinstance(arguments[0], (str, bytes)):
        _SEEN.add(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_see)


@pytest.fixture
def seen(monkeypatch):
    """What is opened meanwhile; what is waited for raises."""

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    monkeypatch.setattr(sys.modules[__name__], "_SEEN", set())
    yield _SEEN
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        (".train.py.00000000.kbitlint-tmp", ["--fix", "train.py"], 0),
        ("b.json", ["check", "train.py", "--baseline", "b.json"], 2),
        ("b.json", ["check", "train.py", "--baseline", "b.json", "--prune-baseline"], 2),
        ("a.yaml", ["check", "train.py", "--training", "a.yaml"], 2),
        ("ds.json", ["check", "train.py", "--training", "ds.json"], 2),
        ("lib/.gitignore", ["check", "."], 0),
        (".gitignore", ["check", "."], 0),
        ("lib/a.py", ["check", "."], 0),
        ("lib/a.ipynb", ["check", "."], 0),
        ("lib/config.json", ["check", "."], 0),
        ("requirements.txt", ["check", "train.py"], 0),
        ("pyproject.toml", ["check", "train.py"], 0),
        ("pyproject.toml", ["config"], 0),
        ("lib/train.py", ["check", "lib/train.py"], 2),
        ("lib/config.json", ["check", "lib/config.json"], 2),
        ("here/config.json", ["check", "train.py"], 0),
        ("ck/kbitlint.json", ["check", "ck/config.json"], 0),
    ],
)
def test_what_is_no_file_is_not_opened(run, seen, tmp_path, kind, name, arguments, code):  # noqa: PLR0917  # parametrized
    (tmp_path / "train.py").write_text(SCRIPT.replace('"m"', '"here"'))
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck/config.json").write_text('{"model_type": "llama"}')
    make(kind, tmp_path / name)
    before = (tmp_path / name).lstat().st_ino

    result = run(*arguments)

    assert seen & ({str(tmp_path / name), os.path.realpath(tmp_path / name)} - {"/dev/null"}) == set()
    assert (tmp_path / name).lstat().st_ino == before
    assert (result.exit_code, result.stderr.count("\n")) == (code, code == 2), result.output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ad/adapter_model.safetensors", "base/model.safetensors", "base/generation_config.json"])
def test_a_folder_is_handed_to_libraries_with_files_only(seen, tmp_path, kind, name):
    from kbitlint.model.build.weights import load

    (tmp_path / "ad").mkdir()
    (tmp_path / "ad/adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "../base"}')
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text('{"model_type": "llama"}')
    make(kind, tmp_path / name)

    with pytest.raises(kbitlint.KbitlintError, match=f"{name}: cannot be loaded: it is {KINDS[kind]}, not a file"):
        load(parse(str(tmp_path / "ad")), "cpu", "nf4", trust_remote_code=False)
    assert str(tmp_path / name) not in seen


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_named_for_what_it_is(tmp_path, kind):
    make(kind, tmp_path / "a")

    for read in (content.opened, content.read, content.read_text, lambda path: content.head(path, 1)):
        with pytest.raises(OSError, match=f"it is {KINDS[kind]}, not a file"):
            read(tmp_path / "a")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_takes_the_place_of_a_file_after_the_look_is_not_waited_for(tmp_path, monkeypatch, kind):
    make(kind, tmp_path / "a")
    (tmp_path / "file").write_text("x")
    regular = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda self: regular)

    with pytest.raises(OSError, match=f"it is {KINDS[kind]}, not a file"):
        content.read(tmp_path / "a")


def test_no_more_is_read_than_can_be_meant(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")

    assert [content.read(tmp_path / "a", most) for most in (5, 6, 1 << 40)] == [b"12345"] * 3
    assert content.head(tmp_path / "a", 2) == b"12"
    with pytest.raises(content.TooLargeError, match="larger than"):
        content.read(tmp_path / "a", 4)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(content.TooLargeError):
        content.read(tmp_path / "hole")


def test_a_file_whose_size_is_told_as_0_is_read_as_far_as_it_may_be():
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("no such files here")

    assert stat.S_ISREG(path.stat().st_mode)
    assert content.read(path).startswith(b"Name:")
    with pytest.raises(content.TooLargeError):
        content.read(path, 10)


def test_a_link_is_no_file_where_links_are_not_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")

    with pytest.raises(OSError, match="not a file"):
        content.opened(tmp_path / "link", follow=False)
    with content.opened(tmp_path / "real", follow=False) as file:
        assert file.read() == b"x"


#: what may open files, and why: module -> functions
OPENERS = {
    "runtime/content.py": "the place for it",
    "files/atomic.py": "opens to write, and folders to lock them",
    "runtime/process_memory.py": "reads what the kernel tells of our own processes",
    "jobs/server.py": "opens pipes to its own processes, and /dev/null",
    "cli/terminal.py": "opens /dev/null to write",
    "runtime/call_watch.py": "reads the memory of our own processes",
    "lsp.py": "opens its own standard streams again",
    "runtime/enclosure.py": "reads what the kernel tells of our own processes",
    "rehearsal/process.py": "writes the request and the output of its own process, and reads the output",
    "rehearsal/stage.py": "reads the request that rehearsal/process.py wrote",
    "rehearsal/own_folder.py": "locks a file of its own folder",
    "rehearsal/stand_ins/weight_files.py": "writes into the rehearsal's own folder",
    "rehearsal/inside/shared_memory.py": "makes shared memory in the rehearsal's own folder",
    "runtime/orphans.py": "reads what the kernel tells of our own processes",
    "rehearsal/inside/user_code.py": "reads the source of code that runs",
    "runtime/distributions.py": "reads the metadata of installed packages",
    "runtime/landlock.py": "opens folders to name them to the kernel",
    "rehearsal/inside/peers.py": "writes what a rank sends, and reads what its own ranks wrote",
    "upstream/features.py": "reads what is installed with it",
    "upstream/contracts/diffusers.py": "reads what is installed with it",
    "upstream/messages.py": "reads what is installed with it",
    "output/json.py": "reads what is installed with it",
    "output/html/page.py": "reads what is installed with it",
    "model/build/meta.py": "hands regular files to safetensors",
    "model/edits/checkpoint_tensors.py": "hands regular files to safetensors",
}
_OPENS = {"open", "fdopen", "safe_open", "read_text", "read_bytes", "load_file", "openpty", "mmap"}


def test_one_place_opens_files_for_reading():
    found = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", None) or getattr(called, "id", None)
            ours = getattr(getattr(called, "value", None), "id", None) == "content" or isinstance(called, ast.Name)
            if name in _OPENS and not (ours and name == "read_text"):
                found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(name)

    assert set(found) == set(OPENERS), json.dumps({name: sorted(names) for name, names in found.items()}, indent=1)


@pytest.mark.parametrize("name", ["thing", "train.py", "train.ipynb", "config.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_is_no_file_is_not_taken_for_a_hub_id(tmp_path, kind, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(kind, tmp_path / name)

    with pytest.raises(TargetError, match=f"^{re.escape(name)}: is a pipe, a device or a socket, not a file$"):
        parse(name)
