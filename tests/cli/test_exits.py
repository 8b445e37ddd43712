"""What is not a violation is never exit code 1: every exception is 2 and one line, Ctrl-C is 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from benchmarks.robustness import reach, trials
from benchmarks.robustness.trials import Run, Tally
from kbitlint.cli import interrupts

LINES = {
    "MemoryError": "kbitlint: out of memory",
    "KeyboardInterrupt": "kbitlint: interrupted",
    "RecursionError": (
        "kbitlint: an error of its own, which --verbose shows: RecursionError: maximum recursion depth exceeded"
    ),
    "OSError": "kbitlint: the output: No space left on device",
    "BrokenPipeError": "kbitlint: the output: Broken pipe",
}


@pytest.mark.parametrize("error", reach.EXCEPTIONS, ids=lambda error: f"{type(error).__name__}({error.args[:1]})")
@pytest.mark.parametrize("stage", reach.STAGES)
def test_whatever_is_raised_anywhere_is_one_line(run, tmp_path, monkeypatch, stage, error):
    (tmp_path / "t.py").write_text(reach.SCRIPT.read_text())
    module, name = reach.STAGES[stage]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(f"{module}.{name}", fail)
    result = run("check", "t.py")

    kind = type(error).__name__
    caught = stage == "audit" and not isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
    assert result.exit_code == (130 if kind == "KeyboardInterrupt" else 2)
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == 1
    assert caught or result.stderr.strip() == LINES.get(kind, result.stderr.strip())
    assert result.stderr.startswith("kbitlint: ")


def test_verbose_shows_where_an_error_of_its_own_was_raised(run, tmp_path, monkeypatch):
    (tmp_path / "t.py").write_text("x = 1\n")
    monkeypatch.setattr("kbitlint.config.load", lambda *_: 1 / 0)

    result = run("check", "t.py", "--verbose")

    assert result.exit_code == 2
    assert "in <lambda>" in result.stderr
    assert result.stderr.splitlines()[-1] == (
        "kbitlint: an error of its own, which --verbose shows: ZeroDivisionError: division by zero"
    )


@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize("part", ["_outputs", "_names", "_dead"])
def test_each_fault_of_the_benchmark_ends_with_its_code(tmp_path, monkeypatch, part):
    monkeypatch.setattr(reach, "COMMANDS", ("check t.py", "rules"))  # the benchmark has others too
    for name, text in (("t.py", reach.SCRIPT.read_text()), ("clean.py", "x = 1\n")):
        (tmp_path / name).write_text(text)
    tally = Tally("exits", "")

    getattr(reach, part)(tally, tmp_path)

    assert tally.lost == []
    assert tally.tried >= {"_outputs": 13, "_names": 26, "_dead": 2}[part]


@pytest.fixture
def heeded():
    """Let what the test starts heed Ctrl-C: a shell has its background jobs ignore it, and their processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_130_and_one_line(tmp_path):
    (tmp_path / "clean.py").write_text("x = 1\n")
    (tmp_path / "f.py").write_text("import time\ndef build():\n    time.sleep(600)\n")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "clean.py").write_text("x = 1\n")
    tally = Tally("exits", "")

    reach._interrupted(tally, tmp_path, 10)

    assert tally.lost == []


class Lines:
    """Sends Ctrl-C to this process before the n-th line of the command line, of click and of callbacks that it runs."""

    FILES = ("kbitlint/cli/", "/click/core.py", "runtime/import_paths.py")

    def __init__(self, number, counted):
        self.left, self.counted = number, counted

    def __call__(self):
        signal.signal(signal.SIGINT, interrupts._leave_at_once)  # as the imports of the command line leave it
        sys.settrace(self.trace)

    def trace(self, frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_name not in ("cb", "__del__") and not any(one in code.co_filename for one in self.FILES):
            return None
        if event == "line":
            self.left -= 1
            self.counted.write_text(str(-self.left)) if self.left < 0 else None
            if self.left == 0:
                sys.settrace(None)
                os.kill(os.getpid(), signal.SIGINT)
        return self.trace


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("command", [("rules",), ("check", "clean.py")], ids=lambda words: words[0])
def test_ctrl_c_at_a_line_is_130_and_one_line(tmp_path, monkeypatch, command):
    (tmp_path / "clean.py").write_text("x = 1\n")
    counted = tmp_path / "lines"
    monkeypatch.setattr(sys, "argv", ["kbitlint"])
    whole = trials.run(command, tmp_path, before=Lines(0, counted))
    last = int(counted.read_text())

    ended = [trials.run(command, tmp_path, before=Lines(1 + last * part // 12, counted)) for part in range(12)]

    assert (whole.code, whole.err) == (0, "")
    assert {(run.code, run.err) for run in ended} == {(130, "kbitlint: interrupted\n")}


SWALLOWED = {
    "a handler": "try: stop()\nexcept BaseException: pass",
    "the end of an object": "class Ends:\n    def __del__(self): stop()\nEnds()",
    "a callback of a weak reference": "import weakref\nclass Held: pass\nheld = Held()\nweakref.finalize(held, stop)\ndel held",
    "a callback of an import": (
        "def trace(frame, event, _):\n"
        "    if frame.f_code.co_name == 'cb' and 'importlib' in frame.f_code.co_filename:\n"
        "        sys.settrace(None); stop()\n"
        "sys.settrace(trace)\nimport wave, colorsys, sndhdr"
    ),
    "a callback of C": "import ctypes\nctypes.CFUNCTYPE(None)(stop)()",
}


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(
    ("by", "then"),
    [
        *((by, "time.sleep(600)") for by in SWALLOWED),
        ("a handler", "return check(*arguments, **options)"),
        ("a handler", "raise ImportError('loaded twice')"),
    ],
)
def test_ctrl_c_that_is_swallowed_ends_the_run_all_the_same(tmp_path, by, then):
    """Whatever the run does then: it waits, goes on, or fails later because of the import that was broken off."""
    code = (
        "import os, signal, sys, time\nfrom kbitlint import api, cli\ncheck = api.check\n"
        "def stop(*_):\n    os.kill(os.getpid(), signal.SIGINT)\n    [0 for _ in range(10**6)]\n"
        f"def swallows(*arguments, **options):\n{textwrap.indent(SWALLOWED[by], '    ')}\n    {then}\n"
        "api.check = swallows\ncli.main(['check', 't.py'])\n"
    )
    (tmp_path / "t.py").write_text("x = 1\n")

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stderr) == (130, "kbitlint: interrupted\n")


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (Run(2, "", "kbitlint: x\n", 0), None),
        (Run(1, "", "kbitlint: x\n", 0), "left with 1"),
        (Run(2, "", "", 0), "says ''"),
        (Run(2, "", "kbitlint: x\nmore\n", 0), "says "),
        (Run(2, "", "Traceback (most recent call last):\n", 0), "says "),
        (Run(2, "", "kbitlint: \x1b[31m\n", 0), "steers the terminal"),
        (Run(2, "", "kbitlint: x\n", 60, hung=True), "hung"),
    ],
)
def test_a_wrong_end_is_seen(ended, problem):
    found = "; ".join(filter(None, reach.judged(ended, 2)))

    assert found.startswith(problem) if problem else found == ""


# ------------------------------------------------------------------------------- functions that a project lists

TRAIN = "def build_model():\n    open('ran', 'w')\n    import tiny\n    return tiny.prepared()\n"
SKIPPED = {"code": "", "reason": "functions are not run (--no-run)", "surface": "model"}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "pyproject.toml").write_text('[tool.kbitlint]\ntargets = ["train.py:build_model", "script.py"]\n')
    (tmp_path / "script.py").write_text("x = 1\n")
    return tmp_path


def test_a_function_that_the_project_lists_is_named_before_it_is_run(run, project):
    result = run("check", "--no-trace")

    assert result.exit_code == 0
    assert (project / "ran").exists()
    assert result.stderr == "kbitlint: running train.py:build_model, named by pyproject.toml\n"
    assert run("check", "train.py:build_model", "--no-trace").stderr == ""  # whoever runs it names it here


def test_without_leave_no_function_is_run_and_none_is_clean(run, project):
    import json

    import kbitlint

    for arguments in (("check", "--no-run"), ("check", "--no-run", "--fix"), ("check", "--no-run", "--jobs", "1")):
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), arguments
        assert "train.py:build_model  not run" in result.stdout
        assert "functions are not run (--no-run)" in result.stdout
        assert "clean" not in result.stdout
    (first, _) = json.loads(run("check", "--no-run", "--format", "json").stdout)["targets"]
    assert (first["summary"], first["skips"], first["ran"]) == ("not run", [SKIPPED], [])
    assert kbitlint.check("train.py:build_model", run=False).skips[0].reason == SKIPPED["reason"]
    with pytest.raises(kbitlint.KbitlintError, match="is a function, and functions are not run"):
        kbitlint.memory("train.py:build_model", run=False)
    assert not (project / "ran").exists()
