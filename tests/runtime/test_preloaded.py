"""An interpreter that tests fork has what a new one has: tests of processes rest on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import preloaded
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a new interpreter is started"),
]
START = subprocess.Popen
CODE = """
import json, os, sys, warnings
streams = (sys.stdin, sys.stdout, sys.stderr)
print(json.dumps({
    "arguments": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ), "name": __name__,
    "parent": os.getppid(), "input": sys.stdin.read(), "session": os.getsid(0) == os.getpid(),
    "streams": [(one.encoding, one.errors, one.line_buffering) for one in streams],
    "open": len(os.listdir("/proc/self/fd")),
    "signals": str(__import__("signal").getsignal(2)), "kbitlint": sorted(name for name in sys.modules if "kbitlint" in name),
}))
print("an error", file=sys.stderr)
sys.exit(3)
"""


def ended(monkeypatch, popen, words, **given):
    monkeypatch.setattr(subprocess, "Popen", popen)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **given)
    return done.returncode, done.stdout, done.stderr


def both(monkeypatch, words, **given):
    return [ended(monkeypatch, popen, words, **given) for popen in (START, preloaded.Popen)]


@pytest.mark.parametrize(
    "words", [["-c", CODE, "a b"], ["-I", "-c", CODE], ["-m", "told", "x"], ["told.py"]], ids=lambda x: x[0]
)
def test_it_has_what_a_new_one_has(monkeypatch, tmp_path, words):
    (tmp_path / "told.py").write_text(CODE)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:further", "RANK": "1"}

    new, forked = both(monkeypatch, words, env=environment, input="words", cwd=tmp_path, start_new_session=True)

    assert (forked[0], forked[2]) == (new[0], new[2]) == (3, "an error\n")
    assert json.loads(forked[1]) == json.loads(new[1])


@pytest.mark.parametrize(
    ("code", "number", "last"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("raise SystemExit('left')", 1, "left"),
        ("import atexit, os; atexit.register(print, 'end'); raise SystemExit", 0, ""),
    ],
)
def test_it_ends_as_a_new_one(monkeypatch, code, number, last):
    new, forked = both(monkeypatch, ["-c", code])

    assert forked[:2] == new[:2]
    assert [(one[0], "".join(one[2].splitlines()[-1:])) for one in (new, forked)] == [(number, last)] * 2


def test_it_is_forked_unless_it_reads_other_settings_at_its_start(monkeypatch):
    words = ["-c", "import sys; print('torch' in sys.modules)"]
    found = [
        ended(monkeypatch, preloaded.Popen, [*flags, *words], env={**preloaded.Popen.environment, **further})[1]
        for flags, further in (([], {}), ([], {"HF_HOME": "x"}), (["-OO"], {}), ([], {"PYTHONHASHSEED": "1"}))
    ]

    assert found == ["True\n", "False\n", "False\n", "False\n"]
