"""Orphans: processes whose parent has ended. Linux gives them to this process while it adopts them, so that it can end them.

A process can leave its session and overwrite its environment; whose descendant it is, it cannot change.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.runtime import process_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

#: prctl(2): processes without a parent become children of this one
_SET, _GET = 36, 37
_ROUNDS = 50


@contextmanager
def adopted() -> Iterator[frozenset[int]]:
    """Adopt orphans inside the ``with`` statement, and end them after it. Yield the children that this process has before."""
    if sys.platform != "linux":
        yield frozenset()
        return
    kept = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_GET, ctypes.byref(kept), 0, 0, 0)
        ctypes.CDLL(None).prctl(_SET, 1, 0, 0, 0)
    before = frozenset(_children())
    try:
        yield before
    finally:
        _end(before)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET, kept.value, 0, 0, 0)


def of(before: frozenset[int]) -> list[int]:
    """Return the orphans that this process has adopted, and their descendants.

    Processes that a user's thread started meanwhile are in the session of this process, or may gain privileges.
    """
    if sys.platform != "linux":
        return []
    own = [one for one in _children() if one not in before and _is_confined(one)]
    return [process for one in own for process in process_memory.family(one)]


def _end(before: frozenset[int]) -> None:
    for _ in range(_ROUNDS):  # a process may fork another one while its siblings are ended
        found = of(before)
        if not found:
            return
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        for process in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _children() -> list[int]:
    own = os.getpid()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1]) == own:
                found.append(int(entry.name))
    return found


def _is_confined(process: int) -> bool:
    """Return whether a process is in another session than this one, and can gain no privileges: a rehearsal gives them up."""
    with contextlib.suppress(OSError):
        if os.getsid(process) != os.getsid(0):
            return b"NoNewPrivs:\t1" in Path(f"/proc/{process}/status").read_bytes()
    return False
