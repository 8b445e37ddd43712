"""Reading of files; no other module opens a file for reading.

Only regular files are opened, and only up to a size. A named pipe would block, a device may never end or react to
being opened, and a socket belongs to another process.

A result that depends on files only can be kept: ``kbitlint.runtime.observations`` records which files were asked for.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO

from kbitlint.runtime.observations import Question, observing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: configurations, baselines and .gitignore files are far smaller
MAX_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024
#: if a pipe replaces the file between check and opening, open() neither blocks nor makes it the controlling terminal
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class TooLargeError(OSError):
    """A file with more bytes than the limit."""


def opened(path: Path, *, follow: bool = True) -> BinaryIO:
    """Return a regular file, opened for reading.

    Args:
        path: The file.
        follow: Whether the path may be a symbolic link.

    Raises:
        OSError: If it cannot be opened or is not a regular file. A file of another kind is not opened.
    """
    _must_be_regular(path.stat() if follow else path.lstat(), path)
    handle = os.open(path, _FLAGS | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    try:
        _must_be_regular(os.fstat(handle), path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read(path: Path, most: int = MAX_BYTES) -> bytes:
    """Return all bytes of a regular file.

    Raises:
        TooLargeError: If there are more than ``most`` bytes.
        OSError: If it cannot be read or is not a regular file.
    """
    return observing(Question.BYTES, path, most, _read)


def _read(path: Path, most: int) -> bytes:
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= most else b""
        while size <= most and size < len(content) <= most and (more := file.read(_CHUNK)):
            content += more  # it grows, or its file system reports the size 0
    if max(size, len(content)) > most:
        raise TooLargeError(errno.EFBIG, f"it is larger than {most / 2**20:g} MiB", str(path))
    return content


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Return the text of a regular UTF-8 file with its line ends unchanged.

    Raises:
        OSError: As for ``read``.
        UnicodeDecodeError: If the file is not UTF-8.
    """
    return read(path, most).decode("utf-8")


def head(path: Path, most: int) -> bytes:
    """Return at most ``most`` bytes from the start of a regular file.

    Raises:
        OSError: If it cannot be read or is not a regular file.
    """
    return observing(Question.HEAD, path, most, _head)


def _head(path: Path, most: int) -> bytes:
    with opened(path) as file:
        return file.read(most)


def is_file(path: Path) -> bool:
    """Return whether a path leads to a regular file."""
    return observing(Question.IS_FILE, path, "", _is_file)


def _is_file(path: Path, _: str) -> bool:
    return path.is_file()


def exists(path: Path) -> bool:
    """Return whether a path leads to anything."""
    return observing(Question.EXISTS, path, "", _exists)


def _exists(path: Path, _: str) -> bool:
    return path.exists()


def files_like(folder: Path, pattern: str) -> list[Path]:
    """Return the regular files of a folder whose names match a pattern of a shell, sorted."""
    return observing(Question.GLOB, folder, pattern, _files_like)


def _files_like(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())  # skips named pipes


#: how each question is asked again
ASKED: dict[Question, Callable[[Path, Any], Any]] = {
    Question.BYTES: _read,
    Question.HEAD: _head,
    Question.IS_FILE: _is_file,
    Question.EXISTS: _exists,
    Question.GLOB: _files_like,
}


def must_hold_files(folder: Path) -> None:
    """Raise OSError if an entry of a folder is neither a regular file nor a folder.

    Libraries open the files of a checkpoint folder without such a check.
    """
    for path in sorted(folder.iterdir()):
        try:
            found = path.stat()
        except OSError:  # a broken link
            continue
        if not stat.S_ISDIR(found.st_mode):
            _must_be_regular(found, path)


def _must_be_regular(found: os.stat_result, path: Path) -> None:
    """Raise OSError with the kind of the file if it is not regular."""
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
    raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
