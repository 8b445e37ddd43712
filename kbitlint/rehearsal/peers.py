"""The other ranks of a rehearsal: rank 0 forks them before the script runs. Each writes its messages into a file.

All ranks have imported the same libraries, so a further rank costs little. They meet through ``ranks.py``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.facts.rehearsal import Stall

if TYPE_CHECKING:
    from kbitlint.rehearsal.record import Record

#: the most ranks that run: the GPUs of one machine
MOST = 8
#: seconds that the other ranks may take after the first one has ended
_PATIENCE = 30.0
_LOOK = 0.05
_FRAME = re.compile(r'File "(.+)", line (\d+) in ')


def count_of(record: Record) -> int:
    """Return how many ranks run. A launcher that starts more than ``MOST`` is rehearsed on its first one."""
    asked = record.request.command.ranks or 1
    return asked if asked <= MOST else 1


def messages(folder: str, rank: int) -> Path:
    """Return the file with the messages of a rank other than 0."""
    return Path(folder, f"rank-{rank}")


class Peers:
    """The ranks that this process has forked.

    Args:
        record: The record of the rehearsal.
        running: The process of each rank that runs.
    """

    def __init__(self, record: Record, running: dict[int, int]) -> None:
        self._record, self._running = record, running

    def wait(self) -> None:
        """Wait until every rank has ended. One that still waits long after this rank has ended is sent as a stall."""
        deadline = time.monotonic() + _PATIENCE
        while self._running and time.monotonic() < deadline:
            for rank, process in list(self._running.items()):
                if os.waitpid(process, os.WNOHANG)[0]:
                    del self._running[rank]
            time.sleep(_LOOK)
        for rank, process in self._running.items():
            place = self._place_of(rank, process)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            if place is not None:
                self._record.send(Stall(rank, *place, "rank 0 has ended"))

    def _place_of(self, rank: int, process: int) -> tuple[str, int] | None:
        """Return the innermost line of the user's that a rank runs; None if it runs none."""
        os.kill(process, signal.SIGUSR1)
        time.sleep(4 * _LOOK)
        with contextlib.suppress(OSError):
            for file, line in _FRAME.findall(_stack(self._record.request.folder, rank).read_text("utf-8", "replace")):
                if self._record.is_users(file):
                    return self._record.name_of(file), int(line)
        return None


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


