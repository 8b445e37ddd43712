"""Enclosure of a process that runs code of the user's: it writes in one folder only, and connects to nothing.

The process is one of kbitlint's own. Its audit hook (PEP 578) stays until it ends, and processes that it forks inherit it. The
hook names what it refuses. Native code raises no audit event: Linux itself holds it, by Landlock and a filter of system calls.
``kbitlint.runtime.confinement`` is the narrower guard of a config that is built inside the user's process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from kbitlint.runtime import landlock, system_calls
from kbitlint.runtime.acts import JUDGES, NETWORK, Reach, text_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_WRITES = frozenset(
    (
        *("open", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod"),
        *("os.chown", "os.utime", "os.setxattr", "os.removexattr", "sqlite3.connect"),
    )
)
_TWO = frozenset(("os.rename", "os.link"))
_STARTS = frozenset(
    ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn", "os.forkpty")
)
#: names of databases that are no file
_IN_MEMORY = (":memory:", "")
_CALLS = ("socket.connect", "socket.sendto")
_SIGNALS = frozenset(("os.kill", "os.killpg"))
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: what a rehearsed script may write beside its folder: terminals and the null device
DEVICES = ("/dev/null", "/dev/tty")
#: where native code keeps the shared memory and the locks of processes
SHARED = "/dev/shm"  # noqa: S108  # multiprocessing of the script's needs it


#: processes that a script starts by Python, one after the other or at once: more of them are no training
MOST_FORKS = 512


class EnclosedError(PermissionError):
    """A refused act of a rehearsed script. Libraries treat it like any missing permission."""


def enclose(
    folder: str,
    refused: Callable[[str], None],
    started: Callable[[str], bool],
    resolve: Callable[[str], str] = os.path.realpath,
    *,
    network: bool = False,
    ranks: int = 1,
    watcher: socket.socket | None = None,
) -> None:
    """Refuse every write outside a folder, every connection and every new program, until this process ends.

    No other thread may run yet.

    Args:
        folder: The folder that may be written.
        refused: Receives a refused act in words.
        started: Returns whether a program may be started; receives its name.
        resolve: Returns a path with all links followed.
        network: Whether connections are allowed.
        ranks: How many processes of this kind meet. Native code connects several of them on this machine.
        watcher: Leads to the ``CallWatch`` that judges native code; None if there is none. It is closed.
    """
    own = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # the hook compares strings
    reach = Reach((), ())
    landlock.confine((own, *DEVICES), (SHARED,), network=network or ranks > 1)
    system_calls.refuse(network=network, local=ranks > 1, watcher=watcher)
    if watcher is not None:
        watcher.close()
    forks = mmap.mmap(-1, 8)  # all processes of the script count in it

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        act = None
        if event == "os.fork":
            act = _one_more(forks)
        elif event in _WRITES:
            act = _outside(event, arguments, own, resolve)
        elif event == "socket.bind" and _is_path(arguments):
            act = _outside(event, arguments[1:], own, resolve)
        elif event in NETWORK:
            act = None if network or _is_local(event, arguments, own, resolve) else _connection(event, arguments, reach)
        elif event in _STARTS:
            program = text_of_program(arguments)
            act = None if started(program) else f"start {program}"
        elif event in _SIGNALS and not _is_own(arguments):
            act = "signal a process"
        if act is not None:
            refused(act)
            raise EnclosedError(f"a rehearsed script may not {act}")

    sys.addaudithook(hook)


def _one_more(forks: mmap.mmap) -> str | None:
    """Count a process that is to start, and return the act if it is one too many."""
    count = int.from_bytes(forks[:8], "little") + 1
    forks[:8] = count.to_bytes(8, "little")
    return f"start more than {MOST_FORKS} processes" if count > MOST_FORKS else None


def text_of_program(arguments: tuple[Any, ...]) -> str:
    """Return the name of the program that an audit event starts."""
    for one in arguments:
        first = one[0] if isinstance(one, (list, tuple)) and one else one
        if isinstance(first, (str, bytes, os.PathLike)):
            words = os.fsdecode(first).split()
            return os.path.basename(words[0]) if words else ""  # noqa: PTH119  # a string suffices
    return "a program"


def _outside(event: str, arguments: tuple[Any, ...], own: str, resolve: Callable[[str], str]) -> str | None:
    """Return the act if an event writes outside the folder."""
    if event == "open":
        mode, flags = (*arguments[1:], None, None)[:2]
        writes = (isinstance(flags, int) and flags & _WRITING) or (isinstance(mode, str) and set(mode) & set("wax+"))
        if not writes:
            return None
    paths = arguments[:2] if event in _TWO else arguments[1:2] if event == "os.symlink" else arguments[:1]
    for path in paths:
        place = _place_of(path, event)
        if place is None or place in DEVICES:
            continue
        follows = event in ("open", "os.truncate", "sqlite3.connect", "os.chmod", "os.utime")
        folder, name = os.path.split(place)
        real = resolve(place) if follows else os.path.join(resolve(folder), name)  # noqa: PTH118  # see above
        if not os.path.join(real, "").startswith(own):  # noqa: PTH118  # see above
            return f"write {place}"
    return None


def _place_of(path: Any, event: str) -> str | None:
    """Return the path that an event changes; None if it names none. A descriptor is that of its file."""
    if isinstance(path, int) and event != "open":
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115  # a string suffices
    if event == "sqlite3.connect" and isinstance(path, (str, bytes)):
        name = os.fsdecode(path)
        path = unquote(urlsplit(name).path) if name.startswith("file:") else name
        if path in _IN_MEMORY:
            return None
    return text_of(path)


def _is_path(arguments: tuple[Any, ...]) -> bool:
    """Return whether a socket event names a path of the file system, as opposed to an abstract name or an address."""
    address = arguments[1] if len(arguments) > 1 else None
    return isinstance(address, (str, bytes)) and bool(address) and address[0] not in ("\0", 0)


def _connection(event: str, arguments: tuple[Any, ...], reach: Reach) -> str | None:
    """Return a connection in words."""
    if event in _CALLS and isinstance(arguments[-1], (str, bytes)):
        return f"connect to the service {os.fsdecode(arguments[-1]).lstrip(chr(0))}"
    return JUDGES[event](reach, *arguments)


def _is_local(event: str, arguments: tuple[Any, ...], own: str, resolve: Callable[[str], str]) -> bool:
    """Return whether a socket event stays between processes of the script: at a path in its folder, or a free port.

    Other paths, and names without a path, are those of services of this machine.
    """
    if event == "socket.bind":
        address = arguments[1] if len(arguments) > 1 else None
        return isinstance(address, (str, bytes)) or (isinstance(address, tuple) and address[1:2] == (0,))
    address = arguments[-1] if event in _CALLS else None
    if not isinstance(address, (str, bytes)) or not address or address[0] in ("\0", 0):
        return False
    return resolve(os.fsdecode(address)).startswith(own)


def _is_own(arguments: tuple[Any, ...]) -> bool:
    """Return whether a signal goes to this process or to a child of it."""
    process = arguments[0] if arguments else 0
    if process in (0, os.getpid()):
        return True
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123  # the path is fixed
        return int(file.read().rpartition(b")")[2].split()[1]) == os.getpid()
    return False
