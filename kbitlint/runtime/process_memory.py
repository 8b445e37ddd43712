"""Memory of a process and its children, from Linux's ``/proc``."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

_PROC = Path("/proc")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB$", re.MULTILINE)


def can_be_counted() -> bool:
    """Return whether this system reports the memory of processes."""
    return (_PROC / "self" / "smaps_rollup").is_file() or (_PROC / "self" / "statm").is_file()


def family(process: int) -> list[int]:
    """Return a process and its descendants. They include the processes of its session whose parent has ended."""
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


def held_by(process: int) -> int:
    """Return the bytes in memory of a process and its descendants.

    A shared page is divided among the processes that share it.
    """
    return sum(map(_held, family(process)))


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


def _page_size() -> int:
    import resource  # Windows has none

    return resource.getpagesize()
