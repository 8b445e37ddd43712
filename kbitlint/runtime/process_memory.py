"""Processes that a process started, and their memory: from Linux's ``/proc``, elsewhere through psutil if it is installed."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

_PROC = Path("/proc")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB$", re.MULTILINE)


def can_be_counted() -> bool:
    """Return whether the memory of processes can be read: on Linux always, elsewhere with psutil (``kbitlint[processes]``)."""
    return _has_proc() or find_spec("psutil") is not None


def _has_proc() -> bool:
    return (_PROC / "self" / "smaps_rollup").is_file() or (_PROC / "self" / "statm").is_file()


def family(process: int) -> list[int]:
    """Return a process and its descendants. On Linux they include those of its session whose parent has ended."""
    if not _has_proc():
        return sorted({process, *_descendants(process)})
    children = defaultdict(list)
    found = []
    for entry in _PROC.glob("[0-9]*"):
        try:
            after_name = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # the process has ended
            continue
        children[int(after_name[1])].append(int(entry.name))
        if int(after_name[3]) == process and int(entry.name) != process:
            found.append(int(entry.name))
    known, waiting = {process}, [process, *found]
    while waiting:
        one = waiting.pop()
        known.add(one)
        waiting += [child for child in children[one] if child not in known]
    return sorted(known)


def _descendants(process: int) -> list[int]:
    """Return the descendants of a process as psutil sees them; none without psutil."""
    if find_spec("psutil") is None:
        return []
    import psutil  # an extra, for systems without /proc

    try:
        return [child.pid for child in psutil.Process(process).children(recursive=True)]
    except psutil.Error:  # it has ended
        return []


def started_with(text: str) -> list[int]:
    """Return the processes in whose environment a text was when their program started; none without ``/proc``.

    A process that is forked keeps it, in a session of its own and without a parent too.
    """
    found = []
    for entry in _PROC.glob("[0-9]*") if _has_proc() else ():
        try:
            if text.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def held_by(process: int) -> int:
    """Return the bytes in memory of a process and its descendants.

    A shared page is divided among the processes that share it. On macOS and Windows, only unshared pages count.
    """
    return sum(map(held_by_one, family(process)))


def held_by_one(process: int) -> int:
    """Return the bytes in memory of a process, without its descendants."""
    return _held(process) if _has_proc() else _unshared(process)


def _held(process: int) -> int:
    try:
        found = _PSS.search((_PROC / str(process) / "smaps_rollup").read_bytes())
        if found is not None:
            return int(found[1]) * 1024
    except ProcessLookupError:
        return 0
    except OSError:  # an old kernel, or a process of another user
        pass
    try:
        return int((_PROC / str(process) / "statm").read_bytes().split()[1]) * _page_size()
    except (OSError, IndexError):
        return 0


def _unshared(process: int) -> int:
    if find_spec("psutil") is None:
        return 0
    import psutil  # an extra, for systems without /proc

    try:
        return int(psutil.Process(process).memory_full_info().uss)
    except psutil.Error:  # it has ended, or belongs to another user
        return 0


def _page_size() -> int:
    if sys.platform == "win32":
        return 4096
    import resource  # Windows has none

    return resource.getpagesize()
