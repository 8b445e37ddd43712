"""Writes files whole or not at all, and lets one fix at a time into a folder.

A new file is written beside the old one and takes its place in one step, so a kill, a full disk or a power cut leaves the
old content or the new one. What a kill leaves of the new file is removed by the next write of the same file.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kbitlint.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows has other locks; there nothing is held
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".kbitlint-tmp"
#: characters of a name that its temporary file keeps: names may be 255 bytes long, in any script
_KEPT = 50


def replace(path: Path, content: bytes, *, follow: bool = True) -> None:
    """Give a file this content, with the permissions that it has, or those of a new file.

    A link stays where it is and what it leads to is written, or with ``follow=False`` the link is replaced by the file.
    What is no regular file (``/dev/stdout``, a named pipe) is written to as it stands.

    Raises:
        OSError: It cannot be written; the file is as it was, and nothing is left beside it.
    """
    try:
        place = path.resolve() if follow else path
        before = place.stat() if follow else place.lstat()
    except FileNotFoundError:
        before = None
    except RuntimeError as error:  # links in a circle, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    if before is not None and stat.S_ISLNK(before.st_mode):
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        place.write_bytes(content)
        return
    _remove_abandoned(place)
    temporary = place.with_name(f".{place.name[:_KEPT]}.{secrets.token_hex(4)}{_SUFFIX}")
    # a new file gets what the umask leaves; the place of one that is kept private is private from the start
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600 if before else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            _locked(file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if before is not None:
                _take_over(temporary, before)
            temporary.replace(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _take_over(temporary: Path, before: os.stat_result) -> None:
    """Owner and permissions of the file that is replaced."""
    with contextlib.suppress(OSError, AttributeError):  # only root may give files away, and Windows knows no owners
        os.chown(temporary, before.st_uid, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode))


def _remove_abandoned(place: Path) -> None:
    """Remove what killed writers of this file have left: a writer that lives holds a lock on its own."""
    for path in place.parent.glob(f".{glob.escape(place.name[:_KEPT])}.*{_SUFFIX}"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if _locked(file.fileno()):
                path.unlink()


def _locked(handle: int) -> bool:
    """Whether this handle now holds the lock of its file."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another, or a file system that knows no locks
        return False
    return True


@contextmanager
def alone(folder: Path, target: str) -> Iterator[None]:
    """Hold a folder while it is read, fixed and written, against other processes and threads that would fix it too.

    Where the file system knows no locks on folders, nothing is held.

    Raises:
        TargetError: Another fix holds it.
    """
    handle = None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
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
