"""Audits many targets, each in a process of its own: a crash or a hang costs that target and no other.

The processes are forked from a server that has imported what every audit needs (``kbitlint.preloaded``), so a further
target costs the audit alone. CUDA is not initialised in the server, and no thread of torch runs in it, which is what
makes forking it safe.

Each is the leader of a session, so whatever its code starts ends with it, and it ends when the process that waits for it
does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from kbitlint import usage
from kbitlint.errors import KbitlintError, one_line
from kbitlint.result import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from kbitlint.report import Report

_PRELOADED = ["kbitlint.preloaded"]


#: seconds between two looks at what a target holds: what it takes in between, it may take beyond its limit
_LOOK = 0.1
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What one target may take."""

    seconds: float | None = None
    nbytes: int | None = None
    """Of memory, with all that it starts."""


@dataclass(frozen=True, slots=True)
class _Running:
    target: str
    process: BaseProcess
    answer: Connection
    deadline: float
    limits: Limits


def audit_many(
    targets: Sequence[str],
    options: Mapping[str, Any],
    *,
    jobs: int = 1,
    timeout: float | None = None,
    memory: int | None = None,
) -> list[Report | Failure]:
    """The report of each target, or why there is none, in the order of the targets.

    Args:
        targets: Target strings.
        options: As for ``kbitlint.check``.
        jobs: How many processes run at once.
        timeout: Seconds that one target may take; None for any.
        memory: Bytes of the machine's memory (not a GPU's) that one target may hold with the processes it starts; None
            for any.

    Raises:
        KbitlintError: A limit on memory is asked for where the system does not say what processes hold.
    """
    if memory is not None and not usage.can_be_counted():
        raise KbitlintError("--target-memory needs Linux: this system does not say what processes hold")
    context = multiprocessing.get_context("forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn")
    context.set_forkserver_preload(_PRELOADED)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    limits = Limits(timeout, memory)
    results: dict[int, Report | Failure] = {}
    running: dict[int, _Running] = {}
    waiting = list(enumerate(targets))[::-1]
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, target = waiting.pop()
                running[number] = _start(context, target, options, limits, threads)
            soonest = min(one.deadline for one in running.values())
            patience = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
            if memory is not None:
                patience = min(_LOOK, patience if patience is not None else _LOOK)
            # what the code of a target has started may hold its end of the pipe open, so its end is waited for too
            wait([thing for one in running.values() for thing in (one.answer, one.process.sentinel)], patience)
            for number, one in list(running.items()):
                result = _result(one)
                if result is not None:
                    results[number] = result
                    del running[number]
    finally:
        for one in running.values():
            _end(one)
    return [results[number] for number in range(len(targets))]


def _start(context: Any, target: str, options: Mapping[str, Any], limits: Limits, threads: int) -> _Running:
    answer, told = context.Pipe(duplex=False)
    # no daemon: those may start no processes, and factories that map a dataset do
    process = context.Process(target=_work, args=(told, target, dict(options), threads))
    process.start()
    told.close()  # the child holds the only other end: when it ends, however it does, the pipe does too
    return _Running(target, process, answer, time.monotonic() + (limits.seconds or float("inf")), limits)


def _work(told: Connection, target: str, options: dict[str, Any], threads: int) -> None:
    """Audit one target in a process of its own. What its code prints goes where errors go."""
    if hasattr(os, "setsid"):
        os.setsid()
        threading.Thread(target=_end_with_parent, daemon=True).start()
    from kbitlint import api

    os.dup2(2, 1)
    try:
        _share_cores(threads)
        result: Report | Failure = api.check(target, **options)
    except KbitlintError as error:
        result = Failure(target, " ".join(str(error).split()))
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is this target's
        result = Failure(target, f"{target}: the audit raised {one_line(error)}")
    with contextlib.suppress(OSError, ValueError, AttributeError):  # code may close it, or take it away
        sys.stderr.flush()
    told.send(result)
    told.close()
    os._exit(0)  # taking down an interpreter with torch in it takes longer than a small audit


def _end_with_parent() -> None:
    """End when the process that waits for the report does, however it does: nobody would hear it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _share_cores(threads: int) -> None:
    """Processes that each take all cores for torch's kernels only get in each other's way."""
    import torch

    torch.set_num_threads(threads)


def _result(one: _Running) -> Report | Failure | None:
    """What became of a target; None while it runs."""
    if one.answer.poll() or not one.process.is_alive():
        try:
            found: Report | Failure = one.answer.recv() if one.answer.poll() else _without_report(one)
        except (EOFError, OSError):
            found = _without_report(one)
        _end(one)
        return found
    limits = one.limits
    if limits.seconds is not None and time.monotonic() >= one.deadline:
        _end(one)
        return Failure(one.target, f"{one.target}: was not finished within {limits.seconds:g} s (--target-timeout)")
    if limits.nbytes is not None and usage.held_by(one.process.pid or 0) > limits.nbytes:
        _end(one)
        return Failure(one.target, f"{one.target}: needs more than {_shown(limits.nbytes)} of memory (--target-memory)")
    return None


def _shown(nbytes: int) -> str:
    from kbitlint.output.wording import size

    return size(nbytes)


def _without_report(one: _Running) -> Failure:
    one.process.join()
    code = one.process.exitcode
    ending = f"ended with exit status {code} and no report"
    if code is not None and code < 0:
        ending = f"was ended by {signal.Signals(-code).name}"
    return Failure(one.target, f"{one.target}: its process {ending}")


def _end(one: _Running) -> None:
    """End the process of a target and all that its code has started."""
    leader = one.process.pid or 0
    for _ in range(_ROUNDS):  # what it forks while its others are ended
        started = [process for process in usage.family(leader) if process != leader]
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
