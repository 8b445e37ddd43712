"""Bytes that processes have written: in a folder, and in files without a name."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_BLOCK = 512


def written(folder: str) -> int:
    """Return the bytes that the files beneath a folder take on the disk. Links are not followed."""
    total, waiting = 0, [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
    return total


def unlinked(processes: Iterable[int]) -> tuple[int, int]:
    """Return the bytes of the open files of processes that have no name: (on the disk, in memory); none without ``/proc``."""
    found: dict[tuple[int, int], tuple[int, bool]] = {}
    for process in processes:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{process}/fd"):  # noqa: PTH208  # names suffice
                _look(f"/proc/{process}/fd/{number}", found)
    sizes = found.values()
    return sum(one for one, in_memory in sizes if not in_memory), sum(one for one, in_memory in sizes if in_memory)


def _look(place: str, found: dict[tuple[int, int], tuple[int, bool]]) -> None:
    with contextlib.suppress(OSError):
        target = os.readlink(place)  # noqa: PTH115  # a string suffices
        if target.startswith("/") and target.endswith(" (deleted)"):
            status = os.stat(place)  # noqa: PTH116  # of the open file, which has no path
            if stat.S_ISREG(status.st_mode):
                found[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK, target.startswith(("/memfd:", "/dev/shm/"))  # noqa: S108  # compared
