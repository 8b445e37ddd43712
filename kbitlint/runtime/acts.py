"""Judgement of audit events (PEP 578): which acts a model built from an untrusted config may perform.

``kbitlint.runtime.confinement`` installs the hook. This module imports nothing of kbitlint.
"""

from __future__ import annotations

import functools
import os
import site
import sys
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reach:
    """Paths that may be read and code that may run. Nothing may be written."""

    readable: tuple[str, ...]
    """Readable files and folders, as real paths that end with a separator."""
    libraries: tuple[str, ...]
    """Folders of Python and its packages, in the same form."""


def reach_of(*places: str | Path) -> Reach:
    """Return the reach of some files and folders and of this Python's packages."""
    return Reach(tuple(map(_real, places)), _libraries(tuple(sys.path)))


def _real(folder: str | Path) -> str:
    return os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # the hook compares strings


def is_library(reach: Reach, place: str) -> bool:
    """Return whether a path belongs to Python or a package. Its code may run, and its files may be read."""
    place = os.path.join(place, "")  # noqa: PTH118  # the hook compares strings
    known = reach.libraries
    return place.startswith(known) or place.startswith(_packages(known))  # noqa: PIE810  # the second test is slow and rarely needed


def _packages(known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of imported packages outside the known folders, such as those of a working copy."""
    found = (getattr(module, "__file__", None) for name, module in tuple(sys.modules.items()) if "." not in name)
    places = (os.path.dirname(file) for file in found if isinstance(file, str) and file.endswith("__init__.py"))  # noqa: PTH120  # the hook compares strings
    return tuple(form for place in dict.fromkeys(places) if not place.startswith(known) for form in _forms(place))


@functools.lru_cache(maxsize=8)
def _libraries(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of Python and its packages, both as real paths and as named."""
    import sysconfig  # only confined code needs it

    places = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    places |= {entry for entry in path if entry.rstrip("/\\").endswith(("site-packages", "dist-packages", ".zip"))}
    return tuple(dict.fromkeys(form for place in sorted(places) if place for form in _forms(place)))


def _forms(place: str) -> tuple[str, str]:
    return _real(place), os.path.join(os.path.abspath(place), "")  # noqa: PTH100, PTH118  # the hook compares strings


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: information of the system about itself, none of it private to a user
_SYSTEM = ("/proc/", "/sys/", "/dev/urandom", "/dev/random", "/dev/null", "/usr/share/zoneinfo/", "/usr/lib/os-release")
#: folders of the system's native libraries
_NATIVE = ("/usr/", "/lib/", "/lib64/", "/opt/", "/nix/store/", "/run/opengl-driver/", "/System/", "/Library/")


def text_of(path: Any) -> str | None:
    """Return a path as text; None for the descriptor of an open file."""
    try:
        return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # called thousands of times in one build
    except (TypeError, ValueError):
        return None


def _open(reach: Reach, path: Any, mode: Any = None, flags: Any = 0, *_: Any) -> str | None:
    place = text_of(path)
    if place is None:
        return None
    if (isinstance(flags, int) and flags & _WRITING) or (isinstance(mode, str) and set(mode) & set("wax+")):
        return _write(reach, path)
    if place.startswith(reach.libraries) and ".." not in os.fsdecode(path):
        return None
    real = _real(os.fsdecode(path))  # /proc/self/root leads out of /proc
    if real.startswith((*_SYSTEM, *reach.readable)):
        return None
    return None if is_library(reach, real) else f"read {place}"


def _write(reach: Reach, *paths: Any) -> str | None:
    """Return the act if it writes anything but a library's bytecode, which imports leave in ``__pycache__``."""
    for path in paths:
        place = text_of(path)
        if place is None or place == os.devnull or ("__pycache__" in place and is_library(reach, place)):
            continue
        return f"write {place}"
    return None


def _write_two(reach: Reach, one: Any, other: Any, *_: Any) -> str | None:
    return _write(reach, one, other)


def _write_one(reach: Reach, path: Any = None, *_: Any) -> str | None:
    return _write(reach, path)


def _execute(reach: Reach, code: Any = None, *_: Any) -> str | None:
    """Return the act if it runs a module outside the libraries. Code compiled from text has no file and is allowed."""
    file = getattr(code, "co_filename", "<")
    if getattr(code, "co_name", "") != "<module>" or file.startswith("<"):
        return None
    place = os.path.abspath(file)  # noqa: PTH100  # the hook compares strings
    return None if is_library(reach, place) else f"run the code of {place}"


def _import(reach: Reach, _: Any = None, file: Any = None, *__: Any) -> str | None:
    """Return the act if it imports an extension module outside the libraries. Only their events contain a file."""
    place = None if file is None else text_of(file)
    return None if place is None or is_library(reach, place) else f"run the code of {place}"


def _load_library(reach: Reach, name: Any = None, *_: Any) -> str | None:
    if not isinstance(name, (str, bytes)) or os.sep not in os.fsdecode(name):  # found by the system's loader
        return None
    place = os.path.realpath(os.fsdecode(name))
    named = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    own = tuple(_real(folder) for folder in (sys.prefix, sys.base_prefix, os.environ.get("SYSTEMROOT", ""), *named) if folder)
    return None if place.startswith((*_NATIVE, *own)) or is_library(reach, place) else f"load the library {place}"


def _said(what: str, *positions: int) -> Callable[..., str]:
    """Return a judge that refuses every event, with some of its arguments in the description."""

    def judge(_: Reach, *arguments: Any) -> str:
        named = (arguments[position] for position in positions if position < len(arguments))
        words = (os.fsdecode(one) if isinstance(one, bytes) else str(one) for one in named if one is not None)
        return " ".join(filter(None, (what, *words)))

    return judge


#: audit event -> judge, which returns a description of a refused act and None for an allowed one
JUDGES: dict[str, Callable[..., str | None]] = {
    "open": _open,
    "exec": _execute,
    "import": _import,
    "ctypes.dlopen": _load_library,
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), _write_two),
    **dict.fromkeys(
        (
            *("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr"),
            *("os.removexattr", "sqlite3.connect"),
        ),
        _write_one,
    ),
    "pickle.find_class": _said("unpickle", 0, 1),
    "urllib.Request": _said("connect to", 0),
    "http.client.connect": _said("connect to", 1),
    **dict.fromkeys(("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"), _said("connect to", 0)),
    **dict.fromkeys(("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"), _said("connect to", 1)),
    "subprocess.Popen": _said("start the process", 0),
    "os.system": _said("start the process", 0),
    **dict.fromkeys(("os.exec", "os.posix_spawn", "os.startfile", "pty.spawn"), _said("start the process", 0)),
    "os.spawn": _said("start the process", 1),
    "_winapi.CreateProcess": _said("start the process", 0, 1),
    **dict.fromkeys(("os.fork", "os.forkpty"), _said("start a process")),
    **dict.fromkeys(("os.kill", "os.killpg"), _said("signal a process")),
}
#: events of network access
NETWORK = frozenset(event for event in JUDGES if event.startswith(("socket.", "urllib.", "http.")))
