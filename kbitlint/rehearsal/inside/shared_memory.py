"""Shared memory of the script's processes: in files of the rehearsal's folder, since a segment outlives the processes."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Any


def install(folder: str) -> None:
    """Let ``multiprocessing.shared_memory`` make its segments in a folder, until the process ends."""
    with contextlib.suppress(ImportError):
        changed: Any = importlib.import_module("_posixshmem")  # not on every system

        place = os.path.join(folder, "tmp")  # noqa: PTH118  # a string for the functions below

        def shm_open(path: str, flags: int, mode: int = 0o777) -> int:
            return os.open(_inside(place, path), flags | os.O_CLOEXEC, mode)

        def shm_unlink(path: str) -> None:
            os.unlink(_inside(place, path))  # noqa: PTH108  # a string suffices

        changed.shm_open, changed.shm_unlink = shm_open, shm_unlink


def _inside(folder: str, path: str) -> str:
    return os.path.join(folder, "shm-" + path.strip("/").replace("/", "-"))  # noqa: PTH118  # see above
