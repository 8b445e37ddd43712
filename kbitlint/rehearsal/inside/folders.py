"""The mirror: a folder in which a script finds the user's files at their own paths, and into which all of its writes go.

It starts as a chain of folders with symbolic links to the user's files. A folder or file becomes a copy when it is written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

#: the system's own functions, before ``writing.py`` replaces them
_UNLINK, _MKDIR, _SYMLINK, _SCANDIR = os.unlink, os.mkdir, os.symlink, os.scandir
_DEVICES = ("/dev/", "/proc/", "/sys/")


def _is_device(whole: str) -> bool:
    """Return whether a path is one of the system's. Files in shared memory are files of the user's."""
    return whole.startswith(_DEVICES) and not whole.startswith("/dev/shm/")  # noqa: S108  # compared, not written


class Mirror:
    """The mirror of the file system in one folder.

    Args:
        folder: The temporary folder of the rehearsal. Paths in it stay as they are.
        inside: The folder in it that has the mirror; None for the temporary folder itself.
    """

    def __init__(self, folder: str | Path, inside: str | Path | None = None) -> None:
        self.folder = os.path.realpath(folder)
        self.root = os.path.join(os.path.realpath(inside or folder), "root")  # noqa: PTH118  # strings: asked for every file that opens
        os.makedirs(self.root, exist_ok=True)  # noqa: PTH103  # see above

    def inside(self, place: str) -> str:
        """Return the mirrored path of a real path. It need not exist."""
        return self.root + os.path.abspath(place)  # noqa: PTH100  # see above

    def real(self, place: str) -> str:
        """Return the user's path of a mirrored path; another path unchanged."""
        return place[len(self.root) :] or "/" if place.startswith(self.root + os.sep) else place

    def open_up(self, place: str | Path) -> str:
        """Return the mirrored path of a real folder, with links to its entries and to those of all folders above."""
        made = self.inside(str(place))
        self.own_folder(made)
        return made

    def own_folder(self, mirrored: str) -> None:
        """Make a mirrored folder one of its own, all the way down from the root. Its entries are links until written."""
        made = self.root
        for part in Path(mirrored).relative_to(self.root).parts:
            made = os.path.join(made, part)  # noqa: PTH118  # see above
            real = self.real(made)
            if os.path.islink(made):  # noqa: PTH114  # see above
                real = os.path.realpath(made)
                _UNLINK(made)
            if not os.path.isdir(made):  # noqa: PTH112  # see above
                if os.path.lexists(made):
                    return  # a file of the script's own
                _MKDIR(made)
                self._link_entries(real, made)

    def _link_entries(self, real: str, made: str) -> None:
        with contextlib.suppress(OSError):
            for entry in _SCANDIR(real):
                if entry.path != self.folder and not entry.path.startswith(_DEVICES):
                    with contextlib.suppress(OSError):
                        _SYMLINK(entry.path, os.path.join(made, entry.name))  # noqa: PTH118  # see above

    def for_reading(self, place: str) -> str:
        """Return the path to read: the mirrored one if there is one, else the path itself."""
        whole = os.path.abspath(place)  # noqa: PTH100  # see above
        if whole.startswith(self.folder) or _is_device(whole):
            return place
        mirrored = self.inside(whole)
        return mirrored if os.path.lexists(mirrored) else place

    def for_writing(self, place: str, *, keep: bool = True) -> str:
        """Return the path to write. What lies there is copied first if ``keep``, else the link to it is removed.

        Raises:
            FileNotFoundError: There is no such folder, neither the user's nor one that the script made.
        """
        whole = os.path.abspath(place)  # noqa: PTH100  # see above
        if _is_device(whole):
            return place
        mirrored = whole if whole.startswith(self.folder) else self.inside(whole)
        if not mirrored.startswith(self.root + os.sep):
            return place  # the script's own temporary files
        parent = os.path.dirname(mirrored)  # noqa: PTH120  # see above
        if not os.path.isdir(parent) and not os.path.isdir(self.real(parent)):  # noqa: PTH112  # see above
            return mirrored  # the system says that the folder is missing
        self.own_folder(parent)
        if os.path.islink(mirrored):  # noqa: PTH114  # see above
            real = os.path.realpath(mirrored)
            if os.path.isdir(real):  # noqa: PTH112  # see above
                self.own_folder(mirrored)
            else:
                _UNLINK(mirrored)
                if keep and os.path.isfile(real):  # noqa: PTH113  # see above
                    shutil.copyfile(real, mirrored)
        return mirrored

    def for_new_file(self, place: str) -> str:
        """Return the path of a new file of the mirror. Its folders are made, whether the user has them or not."""
        mirrored = self.inside(place)
        made = os.path.dirname(mirrored)  # noqa: PTH120  # see above
        self.own_folder(made)
        os.makedirs(made, exist_ok=True)  # noqa: PTH103  # see above
        return mirrored

    def own_entries(self, place: str) -> str:
        """Return the path of a folder for native code that writes into it: no entry of the folder is a link to a file.

        Native code follows links, and no audit event tells of it.
        """
        self.for_writing(os.path.join(place, "x"))  # noqa: PTH118  # see above
        mirrored = self.for_reading(place)
        if os.path.isdir(mirrored):  # noqa: PTH112  # see above
            for entry in list(os.scandir(mirrored)):
                if entry.is_symlink() and entry.is_file():
                    self.for_writing(entry.path)
        return mirrored
