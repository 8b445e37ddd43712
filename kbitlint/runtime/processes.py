"""Runs jobs in processes of their own, so many at once, and ends each with all that it has started.

Each process is forked, leads a session of its own, and ends when the one that waits for it does, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from kbitlint.errors import one_line
from kbitlint.runtime import import_paths, process_memory
from kbitlint.sizes import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

#: seconds between two looks at what a job holds: what it takes in between, it may take beyond its limit
_LOOK = 0.1
_ROUNDS = 5
#: prctl(2): the signal that a process gets when the thread that started it ends
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may take."""

    seconds: float | None = None
    nbytes: int | None = None
    """Of memory, with all that it starts."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job without a result."""

    reason: str
    """A clause about the job: ``its process was ended by SIGKILL``."""


@dataclass(frozen=True, slots=True)
class Pool:
    """How jobs are run."""

    work: Callable[[Any], Any]
    """Does one job; its result is pickled."""
    at_once: int = 1
    limits: Limits = Limits()
    folders: tuple[str, ...] = ()
    """Folders that no process imports from."""
    forks: bool = True
    """Whether processes are forked; else each is a new interpreter, which imports what it needs."""
    private: tuple[int, ...] = ()
    """File descriptors of this process that no other may hold."""


@dataclass(frozen=True, slots=True)
class _Running:
    process: BaseProcess
    answer: Connection
    deadline: float
    limits: Limits


def can_fork() -> bool:
    """Return whether processes can be forked here."""
    return "fork" in multiprocessing.get_all_start_methods()


def run(pool: Pool, jobs: Sequence[Any], *, stop: int | None = None) -> Iterator[tuple[int, Any]]:
    """Do the jobs and yield (number of the job, result or ``Unfinished``) as they end.

    Where the generator is closed or raises, nothing of what it started is left.

    Args:
        pool: How.
        jobs: What ``pool.work`` is called with.
        stop: A file descriptor: once it has something to read, or its other end is closed, all jobs are ended.
    """
    context = multiprocessing.get_context("fork" if pool.forks else "spawn")
    running: dict[int, _Running] = {}
    waiting = list(enumerate(jobs))[::-1]
    try:
        while waiting or running:
            while waiting and len(running) < pool.at_once:
                number, job = waiting.pop()
                running[number] = _start(context, pool, job)
            # what a job has started may hold its end of the pipe open, so its end is waited for too
            ends = [thing for one in running.values() for thing in (one.answer, one.process.sentinel)]
            ready = wait([*ends, *(() if stop is None else (stop,))], _patience(running.values(), pool.limits))
            if stop is not None and stop in ready:
                return
            for number, one in list(running.items()):
                result = _result(one)
                if result is not None:
                    del running[number]
                    yield number, result[0]
    finally:
        for one in running.values():
            _end(one)


def _patience(running: Any, limits: Limits) -> float | None:
    soonest = min(one.deadline for one in running)
    patience = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
    return patience if limits.nbytes is None else min(_LOOK, patience if patience is not None else _LOOK)


def _start(context: Any, pool: Pool, job: Any) -> _Running:
    answer, told = context.Pipe(duplex=False)
    # no daemon: those may start no processes, and factories that map a dataset do
    process = context.Process(target=_work, args=(told, pool, job))
    with _uninterrupted():
        process.start()
    told.close()  # the child holds the only other end: when it ends, however it does, the pipe does too
    return _Running(process, answer, time.monotonic() + (pool.limits.seconds or float("inf")), pool.limits)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back: in this process until the end, in one that is started meanwhile until it leads a session."""
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(told: Connection, pool: Pool, job: Any) -> None:
    """Do one job in a process of its own, and tell its result."""
    if hasattr(os, "setsid"):
        os.setsid()
        threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if pool.forks:
        for handle in pool.private:
            os.close(handle)
    sys.path[:] = import_paths.without(sys.path, pool.folders)
    try:
        result = pool.work(job)
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is this job's
        result = Unfinished(f"its process raised {one_line(error)}")
    with contextlib.suppress(OSError, ValueError, AttributeError):  # code may close it, or take it away
        sys.stderr.flush()
    told.send(result)
    told.close()
    os._exit(0)  # taking down an interpreter with torch in it takes longer than a small audit


def _end_with_parent() -> None:
    """End with all that this session holds when the process that waits for the result ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Let the system end this process when the one that started it ends, even where no Python code can run (Linux).

    What this process has started is not ended with it. Elsewhere than on Linux nothing is done.

    Args:
        parent: The process that started this one; where it has ended already, this one ends now. 0: take it back.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if parent else 0, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(1)


def _result(one: _Running) -> tuple[Any] | None:
    """Return what became of a job, in a tuple; None while it runs."""
    if one.answer.poll() or not one.process.is_alive():
        try:
            found = one.answer.recv() if one.answer.poll() else _without_result(one)
        except (EOFError, OSError):
            found = _without_result(one)
        _end(one)
        return (found,)
    limits = one.limits
    if limits.seconds is not None and time.monotonic() >= one.deadline:
        _end(one)
        return (Unfinished(f"was not finished within {limits.seconds:g} s (--target-timeout)"),)
    if limits.nbytes is not None and process_memory.held_by(one.process.pid or 0) > limits.nbytes:
        _end(one)
        return (Unfinished(f"needs more than {_shown(limits.nbytes)} of memory (--target-memory)"),)
    return None


def _shown(nbytes: int) -> str:
    return size(nbytes)


def _without_result(one: _Running) -> Unfinished:
    one.process.join()
    return Unfinished(f"its process {ending(one.process.exitcode)}")


def ending(code: int | None) -> str:
    """Return how a process without a result ended, by its exit status or minus its signal."""
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit status {code} and no report"


def _end(one: _Running) -> None:
    """End the process of a job and all that it has started."""
    leader = one.process.pid or 0
    for _ in range(_ROUNDS):  # what it forks while its others are ended
        started = [process for process in process_memory.family(leader) if process != leader]
        for process in started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if one.process.is_alive():
            one.process.kill()
        elif not started:
            break
    if hasattr(os, "killpg"):  # where /proc does not name them
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    one.process.join()
    one.answer.close()
