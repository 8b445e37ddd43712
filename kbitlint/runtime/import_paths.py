"""Import paths without the working folder and the folders of targets.

Importing a module runs it, and a target's folder is untrusted. Entries of ``sys.path`` lead there only while a
function of the user is imported and called (``kbitlint.runtime.import_state``).
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def reached_by(targets: Iterable[str]) -> tuple[str, ...]:
    """Return the folders from which imports are forbidden: the working folder and those of the targets."""
    found = [_real("")]
    for target in targets:
        for place in (target, target.rpartition(":")[0]):
            path = Path(place) if place else None
            try:
                if path is not None and path.exists():
                    found += [_real(str(path.parent)), *([_real(str(path))] if path.is_dir() else [])]
            except (OSError, ValueError):  # no valid file name
                continue
    return tuple(dict.fromkeys(found))


def without(entries: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Return the entries of a ``sys.path`` that lead to none of these folders, except those that the installation adds.

    The entries of the installation follow those of the standard library: site-packages and the entries of its .pth
    files, such as an editable install. A target may be an installed package. The entries before are the working folder
    of ``python -m`` and PYTHONPATH. They are returned as absolute paths.
    """
    entries, reached = list(entries), set(folders)
    library = os.path.dirname(os.__file__)  # noqa: PTH120  # a string suffices, so pathlib is not needed
    first = entries.index(library) if library in entries else len(entries)
    kept = (os.path.abspath(entry) if entry else "" for entry in entries[:first])  # noqa: PTH100  # a link stays a link
    return [*(entry for entry in kept if entry and _real(entry) not in reached), *entries[first:]]


@contextmanager
def closed_to(folders: Iterable[str]) -> Iterator[None]:
    """Remove these folders from ``sys.path`` inside the context, except those that the installation adds."""
    before = list(sys.path)
    sys.path[:] = without(before, folders)
    try:
        yield
    finally:
        sys.path[:] = before


def _real(entry: str) -> str:
    try:
        return os.path.realpath(entry or os.getcwd())  # noqa: PTH109  # as in the import system
    except OSError:  # the working folder was deleted
        return entry
