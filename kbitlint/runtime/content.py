"""What files hold: the one place that opens them for reading.

Only regular files are opened, and no more is read than can be meant. A named pipe would be waited for, a device may never
end or act on being opened, and a socket belongs to another process.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

#: configurations, baselines and lists of what git ignores are far smaller
MAX_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024
#: a pipe that takes the file's place between the look and the opening is not waited for, and becomes no terminal
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class TooLargeError(OSError):
    """A file that holds more than is read."""


def opened(path: Path, *, follow: bool = True) -> BinaryIO:
    """Return a regular file, open for reading.

    Args:
        path: The file.
        follow: Whether the path may be a link to it.

    Raises:
        OSError: It cannot be opened, or it is something else; then it has not been opened.
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
        TooLargeError: There are more than ``most``.
        OSError: It cannot be read, or is no regular file.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= most else b""
        while size <= most and size < len(content) <= most and (more := file.read(_CHUNK)):
            content += more  # it grows, or is one of those whose size is told as 0
    if max(size, len(content)) > most:
        raise TooLargeError(errno.EFBIG, f"it is larger than {most / 2**20:g} MiB", str(path))
    return content


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Return the text of a regular UTF-8 file, with the line ends that it has. Raises as ``read``, and UnicodeDecodeError."""
    return read(path, most).decode("utf-8")


def head(path: Path, most: int) -> bytes:
    """Return the first bytes of a regular file, at most so many. Raises OSError where it cannot be read or is none."""
    with opened(path) as file:
        return file.read(most)


def must_hold_files(folder: Path) -> None:
    """Raise OSError where an entry of a folder is neither a file nor a folder: libraries open what they find there."""
    for path in sorted(folder.iterdir()):
        try:
            found = path.stat()
        except OSError:  # a link that leads nowhere
            continue
        if not stat.S_ISDIR(found.st_mode):
            _must_be_regular(found, path)


def _must_be_regular(found: os.stat_result, path: Path) -> None:
    """Raise OSError in words where something is no regular file."""
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
    raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
