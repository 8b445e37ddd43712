"""The watcher of a confined process: it reads the paths and addresses of system calls, and lets the kernel go on or refuse.

The kernel holds each call of ``system_calls.py`` until the watcher answers: ``Documentation/userspace-api/seccomp_filter.rst``.
Another thread of the process may change the memory meanwhile, so this guards against code that does not race with it.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING

from kbitlint.runtime import system_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: requests of ``ioctl`` on the descriptor, and its messages: ``include/uapi/linux/seccomp.h``
_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CALL, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_GO_ON = 1
_HERE = (1 << 64) - 100, (1 << 32) - 100
_LONGEST = 4096
_MOST_LINKS = 40
#: a flag of calls at a folder: AT_SYMLINK_NOFOLLOW
_NO_FOLLOW = 0x100
#: call -> (position of the folder's descriptor, of the path, of the flags); None where it has none
_AT: dict[str, tuple[int | None, int | None, int | None]] = {
    **dict.fromkeys(("chmod", "chown", "utime", "utimes", "setxattr", "removexattr"), (None, 0, None)),
    **dict.fromkeys(("lchown", "lsetxattr", "lremovexattr"), (None, 0, -1)),
    **dict.fromkeys(("fchmod", "fchown", "fsetxattr", "fremovexattr"), (0, None, None)),
    **dict.fromkeys(("fchmodat", "futimesat"), (0, 1, None)),
    **dict.fromkeys(("fchmodat2", "utimensat"), (0, 1, 3)),
    "fchownat": (0, 1, 4),
    **dict.fromkeys(("setxattrat", "removexattrat"), (0, 1, 2)),
    "file_setattr": (0, 1, 4),
}
#: call that makes a file -> (position of the folder's descriptor, of the path)
_MAKING: dict[str, tuple[int | None, int]] = {
    **dict.fromkeys(("open", "creat"), (None, 0)),
    **dict.fromkeys(("openat", "openat2"), (0, 1)),
    **dict.fromkeys(("link", "rename"), (None, 1)),
    **dict.fromkeys(("linkat", "renameat", "renameat2"), (2, 3)),
}


class CallWatch:
    """The watcher of the processes of one rehearsal.

    Args:
        folder: The folder in which they may change files.
        others: Further paths that they may change.
        shared: The folder of shared memory. Files that they make there are removed in the end.
        local: Whether they meet on this machine.
    """

    def __init__(self, folder: str, others: Iterable[str] = (), shared: str = "/", *, local: bool = False) -> None:
        self._shared, self._made = os.path.join(shared, ""), set[str]()  # noqa: PTH118  # compared as strings
        self._own = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # compared as strings
        self._others, self._local = frozenset(others), local
        self._here, self.theirs = socket.socketpair()
        self._listener = -1
        self._names = system_calls.names()

    def fileno(self) -> int:
        """Return the descriptor on which something arrives; -1 after the end."""
        return self._here.fileno() if self._here.fileno() >= 0 else self._listener

    def close(self) -> None:
        """Close all descriptors, and remove what is left in shared memory. The kernel refuses calls that wait."""
        self._here.close()
        self.theirs.close()
        if self._listener >= 0:
            os.close(self._listener)
            self._listener = -1
        for path in self._made:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108  # a string

    def answer(self) -> None:
        """Take what has arrived: the descriptor of the process, or a call, which is answered."""
        import fcntl  # Windows has none

        if self._here.fileno() >= 0:
            _, found, _, _ = socket.recv_fds(self._here, 1, 1)
            self._here.close()
            self._listener = found[0] if found else -1
            return
        data = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, data)
        except OSError as error:
            if error.errno == errno.ENOENT and not self._has_ended():
                return  # the process was killed meanwhile
            os.close(self._listener)
            self._listener = -1
            return
        identity, process, _, number, _, _, *arguments = _CALL.unpack(data)
        refused = self._judged(process, self._names.get(number, ""), arguments)
        with contextlib.suppress(OSError):  # the process has ended
            fcntl.ioctl(self._listener, _IS_VALID, struct.pack("=Q", identity))
            answer = (identity, 0, -refused, 0) if refused else (identity, 0, 0, _GO_ON)
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(*answer))

    def _has_ended(self) -> bool:
        import select  # see above

        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def _judged(self, process: int, name: str, arguments: list[int]) -> int:
        """Return the number of the error with which a call is refused; 0 if it may go on."""
        if name in _MAKING:
            with contextlib.suppress(OSError, ValueError):
                self._note(process, *_MAKING[name], arguments)
            return 0  # Landlock judges it
        try:
            allowed = self._may_change(process, name, arguments) if name in _AT else self._may_reach(process, name, arguments)
        except (OSError, ValueError):
            return errno.EACCES
        return 0 if allowed else errno.EPERM if name in _AT else errno.EACCES

    def _note(self, process: int, at: int | None, place: int, arguments: list[int]) -> None:
        """Note a file of shared memory that a call is about to make."""
        path = resolved(process, self._joined(process, at, place, arguments), follows=False)
        if path.startswith(self._shared) and not os.path.lexists(path):
            self._made.add(path)

    def _joined(self, process: int, at: int | None, place: int, arguments: list[int]) -> str:
        """Return the path of a call, from the folder that it is relative to."""
        folder = f"/proc/{process}/cwd" if at is None or arguments[at] in _HERE else f"/proc/{process}/fd/{_int(arguments[at])}"
        return os.path.join(os.readlink(folder), _text(process, arguments[place]))  # noqa: PTH115, PTH118  # see above

    def _may_change(self, process: int, name: str, arguments: list[int]) -> bool:
        at, place, flags = _AT[name]
        if place is None or not arguments[place] or not _text(process, arguments[place]):
            number = _int(arguments[at or 0])
            folder = f"/proc/{process}/cwd" if arguments[at or 0] in _HERE else f"/proc/{process}/fd/{number}"
            return self._is_own(os.readlink(folder))  # noqa: PTH115  # compared as strings
        follows = flags is None or (flags >= 0 and not arguments[flags] & _NO_FOLLOW)
        return self._is_own(resolved(process, self._joined(process, at, place, arguments), follows=follows))

    def _is_own(self, path: str) -> bool:
        return os.path.join(path, "").startswith(self._own) or path in self._others  # noqa: PTH118  # see above

    def _may_reach(self, process: int, name: str, arguments: list[int]) -> bool:
        """Return whether a call connects or sends to the script itself: in its folder, or on this machine if it has ranks."""
        where, length = (arguments[4], arguments[5]) if name == "sendto" else (arguments[1], arguments[2])
        if name == "sendmsg":
            where, length = struct.unpack("=QI", _read(process, arguments[1], 12))
            if not where:
                return True
        address = _read(process, where, min(length & 0xFFFFFFFF, 128))
        family = int.from_bytes(address[:2], "little")
        if family == socket.AF_UNIX:
            path = os.fsdecode(address[2:].partition(b"\0")[0])
            folder = os.readlink(f"/proc/{process}/cwd")  # noqa: PTH115  # see above
            return bool(path) and self._is_own(resolved(process, os.path.join(folder, path)))  # noqa: PTH118  # see above
        if family in (0, 16):  # a socket that lets go of its address, and the kernel itself
            return True
        return self._local and family in _ADDRESSES and _ADDRESSES[family](address).is_loopback


#: families of addresses -> the address that one holds
_ADDRESSES: dict[int, Callable[[bytes], ipaddress.IPv4Address | ipaddress.IPv6Address]] = {
    2: lambda address: ipaddress.IPv4Address(address[4:8]),
    10: lambda address: ipaddress.IPv6Address(address[8:24]).ipv4_mapped or ipaddress.IPv6Address(address[8:24]),
}


def resolved(process: int, path: str, *, follows: bool = True) -> str:
    """Return a path as a process sees it, with all links followed. Links below ``/proc`` are those of the process.

    Raises:
        OSError: There are too many links, or the path leads to files of another process.
    """
    waiting, found, links = [part for part in reversed(path.split("/")) if part not in ("", ".")], "", 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            found = found.rpartition("/")[0]
            continue
        if found == "/proc" and part in ("self", "thread-self"):
            part = str(process)
        one = f"{found}/{part}"
        if (waiting or follows) and os.path.islink(one):  # noqa: PTH114  # see above
            links += 1
            if links > _MOST_LINKS or (one.startswith("/proc/") and not one.startswith(f"/proc/{process}/")):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(one)  # noqa: PTH115  # see above
            if target.startswith("/"):
                found = ""
            waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        else:
            found = one
    return found or "/"


def _text(process: int, address: int) -> str:
    """Return a path in the memory of a process."""
    data = b""
    while len(data) < _LONGEST and b"\0" not in data:
        data += _read(process, address + len(data), 64 - (address + len(data)) % 64)  # never over the end of a page
    return os.fsdecode(data.partition(b"\0")[0])


def _read(process: int, address: int, length: int) -> bytes:
    """Return bytes of the memory of a process.

    Raises:
        OSError: It has no such memory.
    """
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:  # noqa: PTH123  # the path is fixed
        memory.seek(address)
        data = memory.read(length)
    if len(data) < length:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return data


def _int(argument: int) -> int:
    """Return an argument as the number of a descriptor."""
    return argument & 0xFFFFFFFF
