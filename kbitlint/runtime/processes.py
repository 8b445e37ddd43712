"""Jobs in processes of their own, a limited number at a time. Ending a job ends every process that it started.

Each process leads its own session. It ends when the process that waits for its result ends, even by a signal.
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
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from kbitlint.errors import one_line
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime import import_paths, process_memory
from kbitlint.sizes import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

#: seconds between two checks of a job's memory; between them a job may exceed its limit
_LOOK = 0.1
_ROUNDS = 50
#: prctl(2) option: the signal that a process receives when the thread that started it ends
_PR_SET_PDEATHSIG = 1
#: the signal that no process can ignore; Windows has none, and ends a process with any other one
if sys.platform == "win32":
    _KILL = signal.SIGTERM
else:
    _KILL = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one job."""

    seconds: float | None = None
    """Seconds of wall-clock time; None for no limit."""
    nbytes: int | None = None
    """Bytes of memory, including the processes that the job starts; None for no limit."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job without a result."""

    reason: str
    """A clause with the job as its subject: ``its process was ended by SIGKILL``."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The settings for running jobs."""

    work: Callable[[Any], Any]
    """The function that runs one job. Its result is pickled."""
    at_once: int = 1
    """Number of jobs that run at the same time."""
    limits: Limits = Limits()
    folders: tuple[str, ...] = ()
    """Folders from which the processes import no module."""
    forks: bool = True
    """Whether processes are forked. If False, each is a new interpreter and imports its modules itself."""
    private: tuple[int, ...] = ()
    """File descriptors of this process that the jobs' processes close."""


@dataclass(frozen=True, slots=True)
class _Running:
    process: BaseProcess
    answer: Connection
    deadline: float
    limits: Limits


def can_fork() -> bool:
    """Return whether this system can fork processes."""
    return "fork" in multiprocessing.get_all_start_methods()


def run(pool: Pool, jobs: Sequence[Any], *, stop: int | None = None) -> Iterator[tuple[int, Any]]:
    """Run the jobs and yield (number of the job, result or ``Unfinished``) in the order in which they end.

    If the generator is closed or raises, it ends every process that it started.

    Args:
        pool: The settings.
        jobs: The arguments of ``pool.work``.
        stop: A file descriptor. All jobs end when it becomes readable or its other end is closed. None for no such
            signal.
    """
    context = multiprocessing.get_context("fork" if pool.forks else "spawn")
    running: dict[int, _Running] = {}
    waiting = list(enumerate(jobs))[::-1]
    try:
        while waiting or running:
            while waiting and len(running) < pool.at_once:
                number, job = waiting.pop()
                running[number] = _start(context, pool, job)
            # a process that the job started may keep the pipe open, so wait for the end of the job's process too
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
    # not a daemon: a daemon may not start processes, and factories that map a dataset do
    process = context.Process(target=_work, args=(told, pool, job))
    with _uninterrupted():
        process.start()
    told.close()  # only the child has the other end, so the pipe closes when the child ends in any way
    return _Running(process, answer, time.monotonic() + (pool.limits.seconds or float("inf")), pool.limits)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C: in this process until the context ends, in a process started inside until it leads a session."""
    if sys.platform == "win32":  # it sends Ctrl-C to every process of the console
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(told: Connection, pool: Pool, job: Any) -> None:
    """Run one job in its own process, and send the result."""
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if pool.forks:
        for handle in pool.private:
            os.close(handle)
    sys.path[:] = import_paths.without(sys.path, pool.folders)
    try:
        result = pool.work(job)
    except BaseException as error:  # noqa: BLE001  # every exception of a job is its result
        result = Unfinished(f"its process raised {one_line(error)}")
    with contextlib.suppress(OSError, ValueError, AttributeError):  # the job's code may close stderr or replace it
        sys.stderr.flush()
    told.send(result)
    told.close()
    os._exit(0)  # finalizing an interpreter with torch takes longer than a small audit


def _end_with_parent() -> None:
    """End all processes of this session when the process that waits for the result ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        if sys.platform == "win32":
            os._exit(1)
        os.killpg(0, signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Make Linux end this process when its parent ends, even if this process cannot run Python code then.

    Processes that this one started are not ended. On other systems, do nothing.

    Args:
        parent: The process that started this one. If it has already ended, end this process now. 0 cancels the
            setting.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if parent else 0, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(1)


def _result(one: _Running) -> tuple[Any] | None:
    """Return the result of a job in a tuple; None while the job runs."""
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
    """Return how a process without a result ended, from its exit status or the negative number of its signal."""
    if code is not None and code < 0:
        known = {one.value: one.name for one in signal.Signals}
        return f"was ended by {known.get(-code, f'signal {-code}')}"
    return f"ended with exit status {code} and no report"


def _end(one: _Running) -> None:
    """End the process of a job and every process that it started."""
    leader = one.process.pid or 0

    def kill() -> bool:
        alive = one.process.is_alive()
        if alive:
            one.process.kill()
        return alive

    end_family(leader, kill)
    one.process.join()
    one.answer.close()


def end_family(leader: int, kill: Callable[[], bool]) -> None:
    """End every process of a session.

    Args:
        leader: The process that leads the session. The caller waits for it afterwards.
        kill: Ends the leader, and returns whether it was alive.
    """
    if sys.platform != "win32":  # the whole group at once: none of it can fork meanwhile
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    for _ in range(_ROUNDS):  # a process outside of the group may fork another one while its siblings are ended
        started = [process for process in process_memory.family(leader) if process != leader]
        for process in started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, _KILL)
        if not kill() and not started:
            break
