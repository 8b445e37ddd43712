"""Keeps the building of a stranger's config from reaching the network, other files and other programs.

Libraries act on what a config says: they fetch models that it names, unpickle files, import modules, start compilers.
While a config is built, one audit hook (PEP 578) refuses those acts. It sees what Python does; native code that opens
files by itself shows no event, so keys that hand it a path are refused before (``kbitlint.files.config_keys``).
"""

from __future__ import annotations

import functools
import os
import site
import sys
import threading
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType


class RefusedError(PermissionError):
    """An act that a config may not ask for. Libraries that can do without it treat it like any refused access."""


@dataclass(frozen=True, slots=True, eq=False)
class Confinement:
    """Who asks, and what may be read meanwhile."""

    asked_by: str
    """The file of the config, or the Hub id."""
    readable: tuple[str, ...]
    """Files and folders that may be read: real paths that end with a separator."""
    libraries: tuple[str, ...]
    """Folders of Python and its packages, as above."""
    entered: FrameType | None
    """Where it was entered: what is above it on the stack is not its business."""
    threads: weakref.WeakSet[threading.Thread] = field(default_factory=weakref.WeakSet)
    """Threads that were started meanwhile; they stay confined for as long as they live."""


#: what applies to the code that runs here: None where nothing was decided, False where it was lifted
_CURRENT: ContextVar[Confinement | bool | None] = ContextVar("kbitlint_confinement", default=None)
#: every confinement in force, in any thread; the hook looks no further while there is none
_IN_FORCE: list[Confinement] = []


@contextmanager
def confined(asked_by: object, *places: str | Path) -> Iterator[None]:
    """Refuse the network, processes, and files outside of folders to what runs in this context.

    Threads that are started inside are confined too, other threads are not. Reading the packages of Python stays allowed.

    Args:
        asked_by: The file of the config that is built, or the Hub id; named where an act is refused.
        places: Files that may be read, and folders whose files may be.

    Raises:
        TargetError: What runs failed because of a refused act; the message names the file and the act.
    """
    _install()
    within = sys._getframe(2)  # noqa: SLF001  # the function with the ``with``: above is this generator and contextlib
    confinement = Confinement(str(asked_by), tuple(map(_real, places)), _libraries(tuple(sys.path)), within)
    _IN_FORCE[:] = [one for one in _IN_FORCE if one in _entered or any(thread.is_alive() for thread in one.threads)]
    _IN_FORCE.append(confinement)
    _entered.add(confinement)
    token = _CURRENT.set(confinement)
    try:
        yield
    except Exception as error:
        refused = refusal_in(error)
        if refused is None or isinstance(error, RefusedConfigError):
            raise
        raise RefusedConfigError(confinement.asked_by, str(refused)) from error
    finally:
        _CURRENT.reset(token)
        _entered.discard(confinement)
        if not any(thread.is_alive() for thread in confinement.threads):
            _IN_FORCE.remove(confinement)


#: the confinements whose ``with`` block is not left yet
_entered: set[Confinement] = set()


class RefusedConfigError(TargetError):
    """A config whose building needs an act that was refused."""


@contextmanager
def lifted() -> Iterator[None]:
    """Let what runs here do as it likes: code that the user chose, and not the config."""
    token = _CURRENT.set(False)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def refusal_in(error: BaseException) -> RefusedError | None:
    """Return the refused act that led to an exception, None where none did."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if isinstance(found, RefusedError):
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


# ---------------------------------------------------------------------------------------------------- what is a library


def _real(folder: str | Path) -> str:
    return os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  # the hook compares strings


def _is_library(confinement: Confinement, place: str) -> bool:
    """Return whether a path is Python's or a package's, whose code may be run and whose files may be read."""
    place = os.path.join(place, "")  # noqa: PTH118  # see above
    known = confinement.libraries
    return place.startswith(known) or place.startswith(_packages(known))  # noqa: PIE810  # the second is slow, and rare


def _packages(known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of packages that are imported already and lie elsewhere: those of a working copy."""
    found = (getattr(module, "__file__", None) for name, module in tuple(sys.modules.items()) if "." not in name)
    places = (os.path.dirname(file) for file in found if isinstance(file, str) and file.endswith("__init__.py"))  # noqa: PTH120  # see above
    return tuple(form for place in dict.fromkeys(places) if not place.startswith(known) for form in _forms(place))


@functools.lru_cache(maxsize=8)
def _libraries(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders of Python and its packages, real and as they are named."""
    import sysconfig

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


def _text(path: Any) -> str | None:
    """Return a path as text, None for a descriptor of a file that is open already."""
    try:
        return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # thousands of times in one build
    except (TypeError, ValueError):
        return None


def _open(confinement: Confinement, path: Any, mode: Any = None, flags: Any = 0, *_: Any) -> str | None:
    place = _text(path)
    if place is None:
        return None
    if (isinstance(flags, int) and flags & _WRITING) or (isinstance(mode, str) and set(mode) & set("wax+")):
        return _write(confinement, path)
    if place.startswith(confinement.libraries) and ".." not in os.fsdecode(path):
        return None
    real = _real(os.fsdecode(path))  # /proc/self/root leads out of /proc
    if real.startswith((*_SYSTEM, *confinement.readable)):
        return None
    return None if _is_library(confinement, real) else f"read {place}"


def _write(confinement: Confinement, *paths: Any) -> str | None:
    """Allow nothing but the bytecode that imports leave beside a library."""
    for path in paths:
        place = _text(path)
        if place is None or place == os.devnull or ("__pycache__" in place and _is_library(confinement, place)):
            continue
        return f"write {place}"
    return None


def _write_two(confinement: Confinement, one: Any, other: Any, *_: Any) -> str | None:
    return _write(confinement, one, other)


def _write_one(confinement: Confinement, path: Any = None, *_: Any) -> str | None:
    return _write(confinement, path)


def _execute(confinement: Confinement, code: Any = None, *_: Any) -> str | None:
    """Refuse modules that lie outside of the libraries; code that is made from text has no file."""
    file = getattr(code, "co_filename", "<")
    if getattr(code, "co_name", "") != "<module>" or file.startswith("<"):
        return None
    place = os.path.abspath(file)  # noqa: PTH100  # see above
    return None if _is_library(confinement, place) else f"run the code of {place}"


def _import(confinement: Confinement, _: Any = None, file: Any = None, *__: Any) -> str | None:
    """Refuse extension modules that lie outside of the libraries; only those name a file in this event."""
    place = None if file is None else _text(file)
    return None if place is None or _is_library(confinement, place) else f"run the code of {place}"


def _load_library(confinement: Confinement, name: Any = None, *_: Any) -> str | None:
    if not isinstance(name, (str, bytes)) or os.sep not in os.fsdecode(name):  # found by the system's loader
        return None
    place = os.path.realpath(os.fsdecode(name))
    named = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    own = tuple(_real(folder) for folder in (sys.prefix, sys.base_prefix, os.environ.get("SYSTEMROOT", ""), *named) if folder)
    return None if place.startswith((*_NATIVE, *own)) or _is_library(confinement, place) else f"load the library {place}"


def _said(what: str, *positions: int) -> Callable[..., str]:
    """Return a judge that refuses every event, and names some of its arguments."""

    def judge(_: Confinement, *arguments: Any) -> str:
        named = (arguments[position] for position in positions if position < len(arguments))
        words = (os.fsdecode(one) if isinstance(one, bytes) else str(one) for one in named if one is not None)
        return " ".join(filter(None, (what, *words)))

    return judge


_JUDGES: dict[str, Callable[..., str | None]] = {
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
_NETWORK = frozenset(event for event in _JUDGES if event.startswith(("socket.", "urllib.", "http.")))


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _IN_FORCE:
        return
    judge = _JUDGES.get(event)
    confinement = None if judge is None else _confinement()
    if judge is None or confinement is None:
        return
    act = judge(confinement, *arguments)
    if act is not None and (event in _NETWORK or not _importing(confinement)):
        raise RefusedError(f"a model that is built from a config may not {act} (unless you pass --trust-remote-code)")


def _importing(confinement: Confinement) -> bool:
    """Return whether a library is just being imported: what it does then, it does for every config.

    A refusal would leave it half imported. The network is refused even then.
    """
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  # what the judges refuse is rare
    while frame is not None and frame is not confinement.entered:
        if frame.f_code.co_name == "exec_module" and frame.f_code.co_filename.startswith("<frozen importlib"):
            place = _text(getattr(frame.f_locals.get("self"), "path", None))  # None: a module of the interpreter itself
            if place is None or _is_library(confinement, place):
                return True
        frame = frame.f_back
    return False


def _confinement() -> Confinement | None:
    """Return what confines the code that runs here: this context's own, or that of the thread's start."""
    current = _CURRENT.get()
    if current is None:
        thread = threading.current_thread()
        return next((one for one in _IN_FORCE if thread in one.threads), None)
    return current if isinstance(current, Confinement) else None


@functools.cache
def _install() -> None:
    """Add the hook, once: Python has no way to remove one. Threads are marked as they start: before 3.12 no event tells."""
    start = threading.Thread.start

    @functools.wraps(start)
    def marked(thread: threading.Thread) -> None:
        confinement = _confinement() if _IN_FORCE else None
        if confinement is not None:
            confinement.threads.add(thread)
        start(thread)

    threading.Thread.start = marked  # type: ignore[method-assign,assignment]  # the same function, wrapped
    sys.addaudithook(_hook)
