"""Landlock: the part of Linux by which a process gives up rights for good, for its native code and its children too.

Kernels from 5.13 on have it, and need no privilege for it. The rights of each version are in
``include/uapi/linux/landlock.h`` of the kernel. It knows no right to change modes and times of files, which Python's audit
events tell of.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: the system calls, the same numbers on every architecture
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 1, 38
_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
#: removing and making files and folders of every kind
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))
_REMOVE_FILE, _MAKE_FILE = 1 << 5, 1 << 8
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1


def version() -> int:
    """Return the version of Landlock that this kernel has; 0 if it has none."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError, AttributeError):
        return max(0, _call(_CREATE, None, 0, _ASK_VERSION))
    return 0


def confine(writable: Iterable[str], shared: Iterable[str] = (), *, network: bool = False) -> bool:
    """Let this thread, and all that it starts from now on, write beneath some paths only.

    Where the kernel can, TCP connections, and signals to processes that are not confined alike, are refused too.

    Args:
        writable: Folders and files that may be written. Those that do not exist are left out.
        shared: Folders in which files may be made, written and removed, and nothing else.
        network: Whether TCP connections are allowed.

    Returns:
        Whether the process is confined: False where the kernel has no Landlock.
    """
    known = version()
    if not known:
        return False
    on_files = _WRITE_FILE | (_TRUNCATE if known >= 3 else 0)
    files = on_files | _CHANGE_FOLDER | (_REFER if known >= 2 else 0)
    tcp = 0 if network else _BIND_TCP | _CONNECT_TCP
    attributes = struct.pack("=Q", files)
    if known >= 4:
        attributes += struct.pack("=Q", tcp)
    if known >= 6:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS | _SIGNALS)
    rules = _call(_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return False
    try:
        for place in writable:
            _allow(rules, place, files, on_files)
        for place in shared:
            _allow(rules, place, on_files | _MAKE_FILE | _REMOVE_FILE, on_files)
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # what the kernel asks of a process without privileges
        return _call(_RESTRICT, rules, 0) == 0
    finally:
        os.close(rules)


def _allow(rules: int, place: str, files: int, on_files: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = files if stat.S_ISDIR(os.fstat(handle).st_mode) else on_files
            _call(_ADD, rules, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0)
        finally:
            os.close(handle)


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Return the result of a system call; -1 if it fails."""
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *passed))
