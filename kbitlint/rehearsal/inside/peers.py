"""The other ranks of a rehearsal: rank 0 forks them before the script runs. Each writes its messages into a file.

All ranks have imported the same libraries, so a further rank costs little. They meet through ``ranks.py``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.facts.rehearsal import Stall
from kbitlint.rehearsal.messages import Done

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

#: the most ranks that run: the GPUs of one machine
MOST = 8
#: seconds that the other ranks may take after the first one has ended
PATIENCE = 20.0
#: seconds in which the other ranks may fail by themselves after one has
_GRACE = 10.0
_LOOK = 0.05
#: the module of every collective, as a stack names it
_COLLECTIVE = os.path.join("torch", "distributed", "distributed_c10d.py")  # noqa: PTH118  # a part of a line
_FRAME = re.compile(r'File "(.+)", line (\d+) in ')


def count_of(record: Record) -> int:
    """Return how many ranks run. A launcher that starts more than ``MOST`` is rehearsed on its first one."""
    asked = record.request.command.ranks or 1
    return asked if asked <= MOST else 1


def messages(folder: str, rank: int) -> Path:
    """Return the file with the messages of a rank other than 0."""
    return Path(folder, f"rank-{rank}")


class Peers:
    """The ranks that this process has forked. If one fails, all end soon afterwards, as under a launcher.

    Args:
        record: The record of the rehearsal.
        running: The process of each rank that runs.
    """

    def __init__(self, record: Record, running: dict[int, int]) -> None:
        self._record, self._running = record, running
        if running:
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Take note of the ranks that end. End all of them, and this process, once one has failed."""
        failed = False
        while self._running and not failed:
            for rank, process in list(self._running.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    del self._running[rank]
                    failed = failed or status != 0
            time.sleep(_LOOK)
        if failed:
            time.sleep(_GRACE)
            self._kill()
            self._record.send(Done(whole=False))
            os._exit(0)

    def wait(self, *, failed: bool) -> None:
        """Wait until every rank has ended. One that still waits long after this rank has ended is sent as a stall.

        Args:
            failed: Whether this rank has failed, so that the others need not end by themselves.
        """
        deadline = time.monotonic() + (_GRACE if failed else self._record.request.patience)
        while self._running and time.monotonic() < deadline:
            time.sleep(_LOOK)
        for rank, process in [] if failed else list(self._running.items()):
            self._tell(rank, self._stack_of(rank, process))
        self._kill()

    def _tell(self, rank: int, stack: str) -> None:
        """Send where a rank is: it waits for the others, or it has not come to its end."""
        own = ((file, int(line)) for file, line in _FRAME.findall(stack) if self._record.is_users(file))
        file, line = next(own, ("", 0))
        if file and _COLLECTIVE in stack:
            self._record.send(Stall(rank, self._record.name_of(file), line, "rank 0 has ended"))
            return
        where = f", in line {line}" if line else ""
        self._record.skip(f"rank {rank} was ended {self._record.request.patience:g} s after rank 0{where}")

    def _kill(self) -> None:
        for process in list(self._running.values()):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)

    def _stack_of(self, rank: int, process: int) -> str:
        """Return the stack of a rank, the innermost frame first, as ``faulthandler`` writes it; empty if it does not."""
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGUSR1)
            time.sleep(10 * _LOOK)
            return _stack(self._record.request.folder, rank).read_text("utf-8", "replace")
        return ""


def _stack(folder: str, rank: int) -> Path:
    return Path(folder, f"rank-{rank}-stack")


def fork(record: Record) -> Peers:
    """Fork the other ranks. Return those that run to rank 0, and none to each of them."""
    running: dict[int, int] = {}
    for rank in range(1, count_of(record)):
        process = os.fork()
        if not process:
            _become(record, rank)
            return Peers(record, {})
        running[rank] = process
    if running:
        record.note(f"rehearsed on {len(running) + 1} ranks")
    return Peers(record, running)


def _become(record: Record, rank: int) -> None:
    """Make this process a rank: its environment is what a launcher tells it, and its messages go to its file."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    folder = record.request.folder
    record.send_to(os.open(messages(folder, rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    # a rank that waits in native code runs no handler of Python's; this one writes its stack
    faulthandler.register(signal.SIGUSR1, _stack(folder, rank).open("w"), all_threads=True)
