"""The files of a folder that can hold a training, as git sees it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.source.documents import SUFFIXES
from kbitlint.source.gitignore import patterns

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEVER = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})
Ignored = list[tuple[str, Any]]
"""(folder, the patterns of its .gitignore), from the outermost to the innermost."""


def walk(root: Path, notes: list[str] | None = None) -> list[Path]:
    """The files of a folder and its folders, sorted; without what git ignores, hidden folders and links to folders.

    Args:
        root: The folder.
        notes: Takes a line for each part of a .gitignore that is not read.
    """
    unread = [] if notes is None else notes
    return sorted(Path(path) for path in _walk(str(root), _above(root, unread), unread))


def _walk(folder: str, ignored: Ignored, notes: list[str]) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == ".gitignore" and entry.is_file() for entry in entries):  # reading a named pipe would wait for ever
        ignored = [*ignored, (folder, patterns(Path(folder) / ".gitignore", notes))]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if (
                not entry.name.startswith(".")
                and entry.name not in _NEVER
                and not _is_ignored(entry.path, ignored, folder=True)
            ):
                yield from _walk(entry.path, ignored, notes)
        elif entry.name.endswith(SUFFIXES) and entry.is_file() and not _is_ignored(entry.path, ignored, folder=False):
            yield entry.path


def _above(root: Path, notes: list[str]) -> Ignored:
    """The .gitignore files between the top of the repository and the folder."""
    found: Ignored = []
    folder = root.resolve()
    while not (folder / ".git").exists():
        if folder.parent == folder:
            return []  # no repository
        folder = folder.parent
        if (folder / ".gitignore").is_file():
            found.insert(0, (str(folder), patterns(folder / ".gitignore", notes)))
    return found


def _is_ignored(path: str, ignored: Ignored, *, folder: bool) -> bool:
    """Whether git ignores a path: the innermost .gitignore that says something decides."""
    for base, spec in reversed(ignored):
        relative = os.path.relpath(os.path.realpath(path) if not path.startswith(base) else path, base)
        decided = spec.check_file(relative + "/" if folder else relative).include
        if decided is not None:
            return bool(decided)
    return False
