"""What can be imported: nothing from the working folder or a target's, but by a function that is named to be run.

Importing a module runs it, and the folder of a target is the folder of strangers. So no entry of ``sys.path`` may lead
there, save while a function of the user's is imported and called (``kbitlint.runtime.import_state``).
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
    """Return the folders that must not be imported from: the working folder and those of the targets."""
    found = [_real("")]
    for target in targets:
        for place in (target, target.rpartition(":")[0]):
            path = Path(place) if place else None
            try:
                if path is not None and path.exists():
                    found += [_real(str(path.parent)), *([_real(str(path))] if path.is_dir() else [])]
            except (OSError, ValueError):  # no name that a file can have
                continue
    return tuple(dict.fromkeys(found))


def without(entries: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Return the entries of a ``sys.path`` that lead to none of these folders, as absolute paths."""
    kept = (os.path.abspath(entry) if entry else "" for entry in entries)  # noqa: PTH100  # a link stays a link
    reached = set(folders)
    return [entry for entry in kept if entry and _real(entry) not in reached]


@contextmanager
def closed_to(folders: Iterable[str]) -> Iterator[None]:
    """Keep these folders off the ``sys.path`` of this process, but where the installation itself names them.

    The installation's entries follow those of the standard library: site-packages, and what .pth files there name, such
    as a project that was installed to be edited. What comes before is the working folder of ``python -m`` and PYTHONPATH.
    """
    before = list(sys.path)
    library = os.path.dirname(os.__file__)  # noqa: PTH120  # os names it, and pathlib is not needed for it
    first = before.index(library) if library in before else len(before)
    sys.path[:] = [*without(before[:first], folders), *before[first:]]
    try:
        yield
    finally:
        sys.path[:] = before


def _real(entry: str) -> str:
    try:
        return os.path.realpath(entry or os.getcwd())  # noqa: PTH109  # as the import system does
    except OSError:  # the working folder is gone
        return entry
