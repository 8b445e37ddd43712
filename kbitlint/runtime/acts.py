"""What Python's audit events (PEP 578) tell of acts, and which of them a model built from a config may do."""

from __future__ import annotations

import functools
import os
import site
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be read and run; nothing may be written."""

    readable: tuple[str, ...]
    """Files and folders that may be read: real paths that end with a separator."""
    libraries: tuple[str, ...]
    """Folders of Python and its packages, as above."""


def reach_of(*places: str | Path) -> Reach:
    """Return the reach over files, folders, and the packages of this Python."""
    return Reach(tuple(map(_real, places)), _libraries(tuple(sys.path)))


# ---------------------------------------------------------------------------------------------------- what is a library


def _real(folder: str | Path) -> str:
    return os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # the hook compares strings


def is_library(reach: Reach, place: str) -> bool:
    """Return whether a path is Python's or a package's, whose code may be run and whose files may be read."""
    place = os.path.join(place, "")  # noqa: PTH118  # see above
    known = reach.libraries
    return place.startswith(known) or place.startswith(_packages(known))  # noqa: PIE810  # the second is slow, and rare


def _packages(known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of packages that are imported already and lie elsewhere: those of a working copy."""
    found = (getattr(module, "__file__", None) for name, module in tuple(sys.modules.items()) if "." not in name)
    places = (os.path.dirname(file) for file in found if isinstance(file, str) and file.endswith("__init__.py"))  # noqa: PTH120  # see above
    return tuple(form for place in dict.fromkeys(places) if not place.startswith(known) for form in _forms(place))


@functools.lru_cache(maxsize=8)
def _libraries(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of Python and its packages, real and as they are named."""
    import sysconfig  # only confined code needs it

    places = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    places |= {entry for entry in path if entry.rstrip("/\\").endswith(("site-packages", "dist-packages", ".zip"))}
    return tuple(dict.fromkeys(form for place in sorted(places) if place for form in _forms(place)))


def _forms(place: str) -> tuple[str, str]:
    return _real(place), os.path.join(os.path.abspath(place), "")  # noqa: PTH100, PTH118  # see above


# ---------------------------------------------------------------------------------------------------------- the judges

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: what the system tells about itself; nothing of it belongs to a user
_SYSTEM = ("/proc/", "/sys/", "/dev/urandom", "/dev/random", "/dev/null", "/usr/share/zoneinfo/", "/usr/lib/os-release")
#: where native libraries of the system lie
_NATIVE = ("/usr/", "/lib/", "/lib64/", "/opt/", "/nix/store/", "/run/opengl-driver/", "/System/", "/Library/")


def text_of(path: Any) -> str | None:
    """Return a path as text, None for a descriptor of a file that is open already."""
    try:
        return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # thousands of times in one build
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
    """Allow nothing but the bytecode that imports leave beside a library."""
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
    """Refuse modules that lie outside of the libraries; code that is made from text has no file."""
    file = getattr(code, "co_filename", "<")
    if getattr(code, "co_name", "") != "<module>" or file.startswith("<"):
        return None
    place = os.path.abspath(file)  # noqa: PTH100  # see above
    return None if is_library(reach, place) else f"run the code of {place}"


def _import(reach: Reach, _: Any = None, file: Any = None, *__: Any) -> str | None:
    """Refuse extension modules that lie outside of the libraries; only those name a file in this event."""
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
    """Return a judge that refuses every event, and names some of its arguments."""

    def judge(_: Reach, *arguments: Any) -> str:
        named = (arguments[position] for position in positions if position < len(arguments))
        words = (os.fsdecode(one) if isinstance(one, bytes) else str(one) for one in named if one is not None)
        return " ".join(filter(None, (what, *words)))

    return judge


#: audit event -> what says which act it is where it is refused, and None where it is allowed
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
#: events of the network
NETWORK = frozenset(event for event in JUDGES if event.startswith(("socket.", "urllib.", "http.")))
