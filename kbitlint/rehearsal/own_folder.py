"""The temporary folder of a rehearsal. What an earlier rehearsal left, because it was killed, is removed first.

A rehearsal holds a lock on a file of its folder. The system releases the lock when the process ends in any way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "kbitlint-rehearsal-"
_LOCK = "lock"


@contextmanager
def made() -> Iterator[str]:
    """Yield a new folder, with no symbolic link in its path, and remove it afterwards."""
    sweep(Path(tempfile.gettempdir()))
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix=_PREFIX)))
    handle = _locked(folder / _LOCK, make=True)
    try:
        yield str(folder)
    finally:
        remove(folder)
        if handle is not None:
            os.close(handle)


def sweep(parent: Path) -> None:
    """Remove the folders of rehearsals that have ended without removing them. Those of other users stay."""
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):
            if sys.platform == "win32" or lock.lstat().st_uid != os.getuid() or lock.parent.is_symlink():
                continue
            handle = _locked(lock)
            if handle is not None:
                remove(lock.parent)
                os.close(handle)


def remove(folder: Path) -> None:
    """Remove a folder, however deep it is, and whatever rights its folders have lost.

    Python's own function calls itself for each level. Here every folder comes to the top first, so that no path grows.
    """
    waiting, moved = [folder], 0
    while waiting:
        place = waiting.pop()
        with contextlib.suppress(OSError):
            for entry in os.scandir(place):
                if entry.is_symlink() or not entry.is_dir():
                    os.unlink(entry)  # noqa: PTH108  # the entry suffices
                    continue
                moved += 1
                top = folder / f"{_PREFIX}{moved}"
                os.chmod(entry, 0o700)  # noqa: PTH101  # see above
                os.rename(entry, top)  # noqa: PTH104  # see above
                waiting.append(top)
            if place != folder:
                place.rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def _locked(file: Path, *, make: bool = False) -> int | None:
    """Return a descriptor of a file with the lock; None if another process has the lock, or the system has no locks."""
    if sys.platform == "win32":  # rehearsals are refused there
        return None
    import fcntl  # Windows has none

    handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if make else 0), 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
