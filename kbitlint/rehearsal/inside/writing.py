"""Writes of the script, sent into the mirror. Reads find what the script wrote before."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import threading
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.rehearsal.inside.folders import Mirror

#: functions of ``os`` that read one path, and those that write one or two
_READ = ("stat", "lstat", "listdir", "scandir", "access", "readlink", "chdir")
_WRITE_ONE = ("mkdir", "remove", "unlink", "rmdir", "truncate", "chmod", "utime", "mkfifo", "mknod")
_WRITE_TWO = ("rename", "replace", "link")


#: the system's own function, before it is replaced
_READLINK = os.readlink


class _State(threading.local):
    """Whether this thread moves a path now. The functions that move one call those of ``os`` themselves."""

    moving = False


_STATE = _State()


@contextmanager
def _unmoved() -> Iterator[None]:
    before, _STATE.moving = _STATE.moving, True
    try:
        yield
    finally:
        _STATE.moving = before


def real_path(place: str) -> str:
    """Return the path that the system sees, with all links followed."""
    with _unmoved():
        return os.path.realpath(place)


def _quietly(move: Callable[..., str]) -> Callable[..., str]:
    @wraps(move)
    def moved(place: str, **options: Any) -> str:
        if _STATE.moving:
            return place
        with _unmoved():
            return move(place, **options)

    return moved


def redirect(
    mirror: Mirror, missing: Callable[[str], None] = lambda _: None, asked: Callable[[str], None] = lambda _: None
) -> None:
    """Send every write of this process's Python code into the mirror, until the process ends.

    Args:
        mirror: The mirror.
        missing: Receives the path of a file that is opened to be read, and does not exist.
        asked: Receives a path that is looked for, and does not exist.
    """
    read, write = _quietly(mirror.for_reading), _quietly(mirror.for_writing)
    builtins.open = io.open = _opening(builtins.open, read, write, missing)  # type: ignore[assignment]  # a wrapper of the same function
    low = os.open

    @wraps(low)
    def open_low(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        path = _beneath(path, options, "dir_fd")
        if options.get("dir_fd") is None and _is_path(path):
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            place = write(os.fspath(path), keep=not flags & os.O_TRUNC) if writes else read(os.fspath(path))
            return low(place, flags, *arguments, **options)
        return low(path, flags, *arguments, **options)

    os.open = open_low  # type: ignore[assignment]  # see above
    for name in _READ:
        setattr(os, name, _moved(getattr(os, name), read, 1))
    os.stat = _telling(os.stat, asked)
    for name in _WRITE_ONE:
        setattr(os, name, _moved(getattr(os, name), write, 1))
    for name in _WRITE_TWO:
        setattr(os, name, _moved(getattr(os, name), write, 2))
    linked = os.symlink

    @wraps(linked)
    def symlink(source: Any, place: Any, *arguments: Any, **options: Any) -> None:
        linked(source, write(os.fspath(place)) if _is_path(place) else place, *arguments, **options)

    os.symlink = symlink  # type: ignore[assignment]  # see above


def _opening(original: Any, read: Callable[..., str], write: Callable[..., str], missing: Callable[[str], None]) -> Any:
    @wraps(original)
    def opened(file: Any, mode: Any = "r", *arguments: Any, **options: Any) -> Any:
        if _is_path(file):
            place = os.fspath(file)
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            place = write(place, keep="w" not in mode) if writes else read(place)
            if not writes and not _STATE.moving and not os.path.lexists(place):
                with _unmoved():
                    missing(place)
                place = read(place)
            return original(place, mode, *arguments, **options)
        return original(file, mode, *arguments, **options)

    return opened


def _telling(original: Callable[..., Any], asked: Callable[[str], None]) -> Callable[..., Any]:
    """Return ``os.stat``, which tells of paths that do not exist."""

    @wraps(original)
    def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        try:
            return original(path, *arguments, **options)  # type: ignore[no-any-return]  # os.stat's own
        except FileNotFoundError:
            if not _STATE.moving and _is_path(path):
                with _unmoved():
                    asked(os.fspath(path))
            raise

    return stat


def _moved(original: Callable[..., Any], move: Callable[..., str], count: int) -> Callable[..., Any]:
    """Return a function of ``os`` whose first paths are moved."""

    @wraps(original)
    def function(*arguments: Any, **options: Any) -> Any:
        places = ("dir_fd",) if count == 1 else ("src_dir_fd", "dst_dir_fd")
        arguments = (*map(_beneath, arguments, itertools.repeat(options), places), *arguments[count:])
        moved = [move(os.fspath(one)) if _is_path(one) else one for one in arguments[:count]]
        return original(*moved, *arguments[count:], **options)

    return function


def _beneath(path: Any, options: dict[str, Any], name: str) -> Any:
    """Return a path that is relative to a descriptor as one of its own, and take the descriptor out of the options."""
    if options.get(name) is None or not _is_path(path) or not os.path.isdir("/proc/self/fd"):  # noqa: PTH112  # a string
        return path
    folder = _READLINK(f"/proc/self/fd/{options.pop(name)}")
    return os.path.join(folder, path)  # noqa: PTH118  # a string


def _is_path(value: Any) -> bool:
    """Return whether a value is a path of text. Descriptors and paths of bytes are left to the system and the guard."""
    return isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str))
