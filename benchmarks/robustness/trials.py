"""Runs of the command line in processes of their own, and the verdict on how each of them ended.

``run`` forks a process that has the libraries imported; ``alone`` starts a new interpreter. No case is defined here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 60.0
_CODES = (0, 1, 2)


@dataclass
class Run:
    """The end of one process."""

    code: int
    """The exit status, or the negated signal number."""
    out: str
    err: str
    seconds: float
    hung: bool = False

    @property
    def problem(self) -> str | None:
        """Return a fault that no run may show for any input, or None if the run has none."""
        if self.hung:
            return f"hung for {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.err + self.out:
            return f"traceback: {(self.err.strip() or self.out.strip()).splitlines()[-1][:200]}"
        if self.code not in _CODES:
            return f"ended with {self.code}: {self.err.strip()[-200:]}"
        if self.code == 2 and not self.err.strip():
            return "failed without a word"
        return None


@dataclass
class Tally:
    """The counts of one section."""

    name: str
    what: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def case(self, name: str, *problems: str | None) -> None:
        """Count one case, and print its problems at once. None is no problem."""
        self.tried += 1
        found = [problem for problem in problems if problem]
        if found:
            self.lost.append(f"{name}: {'; '.join(found)}")
            print(f"  LOST {self.name}: {self.lost[-1]}", flush=True)

    def took(self, run: Run) -> Run:
        self.slowest = max(self.slowest, run.seconds)
        return run

    def record(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "survived": self.tried - len(self.lost), "slowest": round(self.slowest, 2)}


def preload() -> None:
    """Import the libraries that every audit needs, so that forked processes start working at once."""
    import torch

    torch.set_num_threads(1)  # a forked process must not wait for threads that it does not have
    import kbitlint.cli.commands
    import kbitlint.jobs.preload  # noqa: F401  # as the server of --jobs does


def run(
    arguments: list[Any],
    folder: Path,
    *,
    seconds: float = SECONDS,
    environment: dict[str, str] | None = None,
    before: Any = None,
    after: float | None = None,
    output: str | None = None,
) -> Run:
    """Run ``kbitlint ARGUMENTS`` in a folder, and return how it ended.

    Args:
        arguments: The arguments of the command line.
        folder: The working folder.
        seconds: The time after which the run counts as hung.
        environment: Additional environment variables.
        before: A function that the new process calls before the command line.
        after: The time in seconds after which the process is killed. None lets it run.
        output: A file that receives standard output. It is not read back.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _become(arguments, folder, environment or {}, before, (out.fileno(), err.fileno(), output))
        status, hung = _waited(child, start, seconds, after)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "surrogateescape"))
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Run(code, texts[0], texts[1], time.perf_counter() - start, hung)


def _waited(child: int, start: float, seconds: float, after: float | None) -> tuple[int, bool]:
    """Wait for the child, kill the rest of its group, and return (wait status, whether it hung)."""
    hung = False
    if after is not None:
        time.sleep(max(0.0, after))
        _kill(child)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
            return status, hung
        if time.perf_counter() - start > seconds:
            hung = True
            _kill(child)
        time.sleep(0.002)


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def _become(
    arguments: Any, folder: Path, environment: dict[str, str], before: Any, places: tuple[int, int, str | None]
) -> None:
    """Run the command line in this forked process, and exit without returning."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update({"HF_HUB_OFFLINE": "1", "COLUMNS": "80", **environment})
        for name in ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS"):
            os.environ.pop(name, None)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(os.open(places[2], os.O_WRONLY) if places[2] else places[0], 1)
        os.dup2(places[1], 2)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False)
            for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
        )
        sys.path.insert(0, "")
        if before is not None:
            before()
        from kbitlint.cli import main

        main([str(argument) for argument in arguments], prog_name="kbitlint")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  # the trials look for tracebacks
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(code)


def alone(arguments: list[Any], folder: Path, *, seconds: float = 120.0, environment: dict[str, str] | None = None) -> Run:
    """Run ``python -m kbitlint ARGUMENTS`` in a new interpreter, for cases that break a forked process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "kbitlint", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "80", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    hung = False
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        hung = True
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    texts = (text.decode("utf-8", "surrogateescape") for text in (out, err))
    return Run(process.returncode, *texts, time.perf_counter() - start, hung)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every regular file below a folder, and the target of every link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = b"-> " + os.fsencode(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
