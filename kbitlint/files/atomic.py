"""Atomic writes, and a lock that admits one fix at a time to a folder.

A new file is written next to the old one and replaces it in one step. After a kill, a full disk or a power cut the
file has its old or its new content. The next write of the same file removes a temporary file that a killed process
left.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.runtime.content import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform == "win32":  # it has other locks; nothing is locked there
    fcntl: Any = None
else:
    import fcntl

#: whether the system replaces files that are open; Windows does not
_REPLACES_OPEN = sys.platform != "win32"
_SUFFIX = ".kbitlint-tmp"
#: characters of the name in the name of its temporary file; a name may have 255 bytes in any script
_KEPT = 50
_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def replace(path: Path, content: bytes, *, follow: bool = True) -> None:
    """Replace the content of a file and keep its owner, permissions, access list and extended attributes.

    If the path is a symbolic link, write the file that it leads to. With ``follow=False``, replace the link itself.
    A file that is not regular (``/dev/stdout``, a named pipe) is written in place.

    Raises:
        OSError: If it cannot be written, or an attribute would be lost. The file is then unchanged and no temporary
            file is left.
    """
    place, before = _found(path, follow=follow)
    if before is not None and not stat.S_ISREG(before.st_mode):
        _write_to(place, content)
        return
    _must_be_replaceable(place, before)
    _remove_abandoned(place)
    temporary = place.with_name(f".{place.name[:_KEPT]}.{os.urandom(4).hex()}{_SUFFIX}")
    # A new file gets its permissions from the umask. The temporary file of an existing one is private until it takes
    # over that one's permissions.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600 if before else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            _locked(file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if before is not None:
                _take_over(temporary, place, before)
            if _REPLACES_OPEN:  # and the lock keeps other processes from removing it until then
                temporary.replace(place)
        if not _REPLACES_OPEN:
            temporary.replace(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def must_be_replaceable(path: Path, *, follow: bool = True) -> None:
    """Raise OSError if ``replace`` would reject this file. Check this before the first of several files is written."""
    _must_be_replaceable(*_found(path, follow=follow))


def _found(path: Path, *, follow: bool) -> tuple[Path, os.stat_result | None]:
    """Return the real path, and the file there; None if there is no file, or a link that will be replaced."""
    try:
        place = path.resolve() if follow else path
        before = place.stat() if follow else place.lstat()
    except FileNotFoundError:
        return place, None
    except RuntimeError as error:  # circular links, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    return place, None if stat.S_ISLNK(before.st_mode) else before


def _must_be_replaceable(place: Path, before: os.stat_result | None) -> None:
    """Raise OSError if a file is read-only, or has hard links, which would keep the old content."""
    if before is None or not stat.S_ISREG(before.st_mode):
        return
    if not before.st_mode & _ANY_WRITE or not os.access(place, os.W_OK):  # root may write it, but its owner forbids that
        raise PermissionError(errno.EACCES, "it has no write permission", str(place))
    if before.st_nlink > 1:
        raise OSError(
            errno.EMLINK,
            f"it has {before.st_nlink} names (hard links), which replacing it would part; write a copy",
            str(place),
        )


def _write_to(place: Path, content: bytes) -> None:
    """Write to a file that is not regular.

    Raises:
        OSError: If that fails. A named pipe without a reader is one case.
    """
    handle = os.open(place, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    with os.fdopen(handle, "wb") as file:
        if hasattr(os, "set_blocking"):
            os.set_blocking(handle, True)
        file.write(content)


def _take_over(temporary: Path, place: Path, before: os.stat_result) -> None:
    """Copy owner, permissions and extended attributes of the old file to the new one.

    Raises:
        OSError: If one of them would be lost.
    """
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # only root can change an owner
            os.chown(temporary, before.st_uid, before.st_gid)
    new = temporary.stat()
    if (new.st_uid, new.st_gid) != (before.st_uid, before.st_gid):
        raise PermissionError(errno.EPERM, "it belongs to another user or group, which replacing it would change", str(place))
    temporary.chmod(stat.S_IMODE(before.st_mode))
    if sys.platform == "linux":  # Python has extended attributes nowhere else
        attributes, others = _attributes(place), _attributes(temporary)
        for name in others.keys() - attributes.keys():  # from the folder's default access list
            os.removexattr(temporary, name)
        for name, value in attributes.items():
            if others.get(name) != value:
                _set_attribute(temporary, place, name, value)


def _attributes(path: Path) -> dict[str, bytes]:
    """Return the extended attributes of a file, including its access list; none if the system has none."""
    if sys.platform != "linux":
        return {}
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return {}
        raise


def _set_attribute(temporary: Path, place: Path, name: str, value: bytes) -> None:
    if sys.platform != "linux":
        return
    try:
        os.setxattr(temporary, name, value)
    except OSError as error:
        raise OSError(error.errno, f"its attribute {name} would be lost ({error.strerror})", str(place)) from error


def _remove_abandoned(place: Path) -> None:
    """Remove temporary files that killed processes left. A running process holds a lock on its own."""
    for path in place.parent.glob(f".{glob.escape(place.name[:_KEPT])}.*{_SUFFIX}"):
        with contextlib.suppress(OSError), opened(path, follow=False) as file:
            if _locked(file.fileno()):
                path.unlink()


def _locked(handle: int) -> bool:
    """Lock the file of a descriptor, and return whether that succeeded."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked by another process, or a file system without locks
        return False
    return True


@contextmanager
def alone(folder: Path, target: str) -> Iterator[None]:
    """Lock a folder while it is read, fixed and written, against fixes by other processes and threads.

    If the file system has no locks on folders, nothing is locked.

    Raises:
        TargetError: If another fix holds the lock.
    """
    handle = None
    if fcntl is not None and sys.platform != "win32":
        with contextlib.suppress(OSError):
            if folder.is_dir() or folder.is_file():
                handle = os.open(folder, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TargetError(
                    target, f"another kbitlint is fixing {folder} at this moment; start again when it is done"
                ) from error
            except OSError:  # this file system has no locks on folders
                pass
        yield
    finally:
        if handle is not None:
            os.close(handle)
