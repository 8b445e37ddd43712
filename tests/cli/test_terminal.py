"""The output is the report alone, and nothing that names hold steers the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from script_cases import SCRIPT

BAD = "\x1b]0;owned\x07\x9b31m\u202e\n\r\u2028\udcff"
PRUNE = "kbitlint: `kbitlint check --prune-baseline` takes out what is gone\n"
SHOWN = "\\x1b]0;owned\\x07\\x9b31m\\u202e\\n\\r\\u2028\\udcff"

FACTORY = """
import os, subprocess, sys
import tiny


def prints():
    print("{", flush=True)
    os.write(1, b"[1, 2")
    subprocess.run(["echo", "}"], check=True)
    sys.stdout = open(os.devnull, "w")
    sys.stderr = None
    os.chdir("/")
    return tiny.load()


class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")


def fails():
    raise Mute
"""


def alone(folder, *arguments, **further):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "kbitlint", *arguments],
        cwd=folder,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support"), "HF_HUB_OFFLINE": "1"},
        **{"capture_output": True, **further},
    )


@pytest.mark.usefixtures("preloaded")
def test_what_a_factory_prints_is_not_in_the_report(tmp_path):
    (tmp_path / "f.py").write_text(FACTORY)

    done = alone(tmp_path, "check", "f.py:prints", "f.py:prints", "--no-trace", "--format", "json")

    assert [target["target"] for target in json.loads(done.stdout)["targets"]] == ["f.py:prints"] * 2
    assert done.stderr.count(b"{\n[1, 2}\n") == 2
    assert done.returncode == 1


def test_an_exception_that_cannot_say_what_it_is_is_one_line(run, tmp_path):
    (tmp_path / "f.py").write_text(FACTORY)

    assert run("check", "f.py:fails").stderr == "kbitlint: f.py:fails: the factory raised Mute\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("check", BAD), f"kbitlint: {SHOWN}: there is no such file or folder"),
        (("explain", BAD), None),
        (("check", ".", "--select", BAD), None),
        (("check", ".", f"--{BAD}"), None),
        (("check", ".", "--format", BAD), None),
        (("check", ".", "--jobs", BAD), None),
        ((BAD,), None),
        ((f"--{BAD}",), None),
    ],
)
def test_what_is_typed_comes_back_escaped(run, arguments, line):
    result = run(*arguments)

    assert result.exit_code == 2
    assert [character for character in result.output if not (character.isprintable() or character == "\n")] == []
    assert "owned" in result.stderr
    assert line is None or result.stderr == f"{line}\n".replace(SHOWN, " ".join(BAD.split()).encode("unicode_escape").decode())


def test_the_lines_about_a_baseline_are_escaped(run, tmp_path):
    (tmp_path / "t.py").write_text(SCRIPT)
    (tmp_path / "b.json").write_text(json.dumps({"version": 2, "files": {"t.py": {"KB401": {BAD: 2}}}}))

    result = run("check", "t.py", "--baseline", "b.json")

    assert result.stderr == f"kbitlint: baseline t.py: KB401 at {SHOWN}: allows 2, there are 0\n" + PRUNE


@pytest.mark.parametrize("arguments", [("--version",), ("rules",), ("check", "t.py"), ("check", "t.py", "--format", "json")])
def test_an_output_that_takes_no_more_is_one_line(tmp_path, arguments):
    (tmp_path / "t.py").write_text(SCRIPT)
    with Path("/dev/full").open("wb") as full:
        done = alone(tmp_path, *arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)

    assert (done.returncode, done.stderr) == (2, b"kbitlint: the output: No space left on device\n")


def test_a_terminal_without_the_letters_gets_their_escapes(tmp_path):
    (tmp_path / "\u6a21.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "kbitlint", "check", "."], cwd=tmp_path, check=False, capture_output=True, env=environment
    )

    assert (done.returncode, done.stderr, b"\\u6a21.py:5" in done.stdout) == (0, b"", True)


def test_a_forked_reader_of_the_report_that_goes_away_is_no_traceback(tmp_path):
    (tmp_path / "t.py").write_text(SCRIPT)
    reader, writer = os.pipe()
    os.close(reader)
    done = alone(tmp_path, "rules", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert (done.returncode, done.stderr) == (2, b"kbitlint: the output: Broken pipe\n")
