"""Audits many targets, each in a process of its own: a crash or a hang costs that target and no other.

The processes are forked from a server that has imported what every audit needs (``kbitlint.preloaded``), so a further
target costs the audit alone. CUDA is not initialised in the server, and no thread of torch runs in it, which is what
makes forking it safe.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, one_line
from kbitlint.violation import Failure, Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_PRELOADED = ["kbitlint.preloaded"]


@dataclass(frozen=True, slots=True)
class _Running:
    target: str
    process: BaseProcess
    answer: Connection
    deadline: float


def audit_many(
    targets: Sequence[str], options: Mapping[str, Any], *, jobs: int = 1, timeout: float | None = None
) -> list[Report | Failure]:
    """The report of each target, or why there is none, in the order of the targets.

    Args:
        targets: Target strings.
        options: As for ``kbitlint.check``.
        jobs: How many processes run at once.
        timeout: Seconds that one target may take; None for any.
    """
    context = multiprocessing.get_context("forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn")
    context.set_forkserver_preload(_PRELOADED)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    results: dict[int, Report | Failure] = {}
    running: dict[int, _Running] = {}
    waiting = list(enumerate(targets))[::-1]
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, target = waiting.pop()
                running[number] = _start(context, target, options, timeout, threads)
            soonest = min(one.deadline for one in running.values())
            wait(
                [one.answer for one in running.values()],
                None if soonest == float("inf") else max(0.0, soonest - time.monotonic()),
            )
            for number, one in list(running.items()):
                result = _result(one, timeout)
                if result is not None:
                    results[number] = result
                    del running[number]
    finally:
        for one in running.values():
            _end(one)
    return [results[number] for number in range(len(targets))]


def _start(context: Any, target: str, options: Mapping[str, Any], timeout: float | None, threads: int) -> _Running:
    answer, told = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(told, target, dict(options), threads), daemon=True)
    process.start()
    told.close()  # the child holds the only other end: when it ends, however it does, the pipe does too
    return _Running(target, process, answer, time.monotonic() + timeout if timeout else float("inf"))


def _work(told: Connection, target: str, options: dict[str, Any], threads: int) -> None:
    """Audit one target in a process of its own. What its code prints goes where errors go."""
    from kbitlint import api

    os.dup2(2, 1)
    try:
        _share_cores(threads)
        result: Report | Failure = api.check(target, **options)
    except KbitlintError as error:
        result = Failure(target, " ".join(str(error).split()))
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is this target's
        result = Failure(target, f"{target}: the audit raised {one_line(error)}")
    told.send(result)
    told.close()
    sys.stderr.flush()
    os._exit(0)  # taking down an interpreter with torch in it takes longer than a small audit


def _share_cores(threads: int) -> None:
    """Processes that each take all cores for torch's kernels only get in each other's way."""
    import torch

    torch.set_num_threads(threads)


def _result(one: _Running, timeout: float | None) -> Report | Failure | None:
    """What became of a target; None while it runs."""
    if one.answer.poll():
        try:
            found: Report | Failure = one.answer.recv()
        except (EOFError, OSError):
            one.process.join()
            found = Failure(one.target, f"{one.target}: its process {_ending(one.process.exitcode)}")
        _end(one)
        return found
    if time.monotonic() >= one.deadline:
        _end(one)
        return Failure(one.target, f"{one.target}: was not finished within {timeout:g} s (--target-timeout)")
    return None


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit status {code} and no report"


def _end(one: _Running) -> None:
    if one.process.is_alive():
        one.process.join(1.0)
    if one.process.is_alive():
        one.process.kill()
        one.process.join()
    one.answer.close()
