"""The bounds of a rehearsal: its time, its memory, its processes, and what it writes."""

from __future__ import annotations

import os
import time
from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime import disk_use, orphans, process_memory
from kbitlint.sizes import size

if TYPE_CHECKING:
    from kbitlint.runtime.processes import Limits

#: a data loader has a process for each core of a large machine
MOST_PROCESSES = 512
#: bytes of the files that a script writes: the checkpoints of a model without weights are small
MOST_WRITTEN = 16 * 2**30
#: bytes of messages: a report on a large model has some megabytes
MOST_SENT = 2**30
#: seconds between two looks at what was written
_LOOK = 2.0


@dataclass(slots=True)
class Bounds:
    """The bounds of one rehearsal."""

    limits: Limits
    leader: int
    """The process that leads the session."""
    folder: str
    """The folder in which it writes."""
    before: frozenset[int]
    """The children of this process that are none of the rehearsal's."""
    started: float = field(default_factory=time.monotonic)
    looked: float = 0.0
    sent: int = 0
    """Bytes of the messages so far."""

    def exceeded(self) -> str | None:
        """Return which bound the rehearsal exceeds, as a clause; None if none."""
        now, limits = time.monotonic(), self.limits
        if limits.seconds is not None and now - self.started >= limits.seconds:
            return f"the script was not through within {limits.seconds:g} s (--timeout)"
        if self.sent > MOST_SENT:
            return f"the script sends more than {size(MOST_SENT)} to kbitlint"
        running = {*process_memory.family(self.leader), *orphans.of(self.before)}
        if len(running) > MOST_PROCESSES:
            return f"the script runs more than {MOST_PROCESSES} processes"
        memory = sum(map(process_memory.held_by_one, running)) if limits.nbytes is not None else 0
        if now - self.looked >= _LOOK:
            self.looked = now
            written, in_memory = disk_use.unlinked(running)
            if disk_use.written(self.folder) + written > MOST_WRITTEN:
                return f"the script writes more than {size(MOST_WRITTEN)}"
            memory += in_memory
        if limits.nbytes is not None and memory > limits.nbytes:
            return f"the script needs more than {size(limits.nbytes)} of memory (--memory)"
        return None


def bounds(limits: Limits, leader: int, folder: str, before: frozenset[int]) -> Bounds:
    """Return the bounds of a rehearsal that starts now."""
    return Bounds(limits, leader, os.path.realpath(folder), before)
