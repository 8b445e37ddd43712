"""The kernel's limit on the processes and threads of a user, which bounds a script that forks without an end."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def limit_tasks(more: int) -> None:
    """Let this process, and those that it starts, add only so many processes and threads to those of its user.

    The kernel does not hold the superuser to it, and macOS and Windows are left as they are.

    Args:
        more: Processes and threads beside those that the user has now.
    """
    if sys.platform != "linux":
        return
    import resource  # Windows has none

    most = _tasks_of(os.getuid()) + more
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _tasks_of(user: int) -> int:
    """Return the number of threads of all processes of a user."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            if entry.stat().st_uid == user:
                count += len(os.listdir(entry / "task"))  # noqa: PTH208  # names alone, a hundred times faster than paths
    return count
