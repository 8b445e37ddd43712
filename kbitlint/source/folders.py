"""The files of a folder that can contain a training, without those that git ignores."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, TargetError
from kbitlint.limits import current
from kbitlint.source.gitignore import patterns, spec_of
from kbitlint.target import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: a line of a .gitignore that is the name of a file or folder
_PLAIN = re.compile(r"[\w.-]+/?")
Excluded = tuple[frozenset[str], list[tuple[str, Any]]]
"""The names that are left out, and (folder, patterns) pairs of the other lines."""
Ignored = list[tuple[str, Any]]
"""(folder, patterns of its .gitignore) pairs, from the outermost folder to the innermost."""


def walk(root: Path, notes: list[str] | None = None) -> list[Path]:
    """Return the files of a folder and its subfolders, sorted.

    Files that git ignores or the project excludes, hidden folders and symbolic links to folders are left out.

    Args:
        root: The folder.
        notes: A list that receives one message for each folder and each part of a .gitignore that is not read; None drops
            them.

    Raises:
        TargetError: The folder itself cannot be listed.
    """
    unread = [] if notes is None else notes
    if not os.access(root, os.R_OK):
        raise TargetError(root, "cannot be listed: Permission denied")
    excluded = _excluded()
    return sorted(Path(path) for path in _walk(str(root), _above(root, unread), excluded, unread))


def is_excluded(path: Path) -> bool:
    """Return whether the project excludes a file, or a folder above it in the project."""
    excluded = _excluded()
    here = Path(current().root or Path.cwd()).resolve()
    there = path.resolve()
    parts = (there, *(folder for folder in there.parents if folder != here and folder.is_relative_to(here)))
    return any(_is_excluded(str(part), part.name, excluded, folder=part != there) for part in parts)


def _excluded() -> Excluded:
    limits = current()
    names = frozenset(line.rstrip("/") for line in limits.exclude if _PLAIN.fullmatch(line))
    others = [line for line in limits.exclude if not _PLAIN.fullmatch(line)]
    return names, [(str(Path(limits.root or ".").resolve()), spec_of(others, _refuse))] if others else []


def _refuse(line: str) -> None:
    raise KbitlintError(f"exclude: {line!r} is no pattern of a .gitignore")


def _is_excluded(path: str, name: str, excluded: Excluded, *, folder: bool) -> bool:
    names, others = excluded
    return name in names or bool(others and _is_ignored(os.path.realpath(path), others, folder=folder))


def _walk(folder: str, ignored: Ignored, excluded: Excluded, notes: list[str]) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        notes.append(f"{folder} cannot be listed: {error.strerror or error}")
        return
    if any(entry.name == ".gitignore" and _is_file(entry) for entry in entries):  # reading a named pipe blocks
        ignored = [*ignored, (folder, patterns(Path(folder) / ".gitignore", notes))]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if (
                not entry.name.startswith(".")
                and not _is_excluded(entry.path, entry.name, excluded, folder=True)
                and not _is_ignored(entry.path, ignored, folder=True)
            ):
                yield from _walk(entry.path, ignored, excluded, notes)
        elif (
            entry.name.endswith(SUFFIXES)
            and _is_file(entry)
            and not _is_excluded(entry.path, entry.name, excluded, folder=False)
            and not _is_ignored(entry.path, ignored, folder=False)
        ):
            yield entry.path


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a regular file; False for a link whose end cannot be found."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _above(root: Path, notes: list[str]) -> Ignored:
    """Return the .gitignore files from the top of the repository down to the folder's parent; empty outside a repository."""
    found: Ignored = []
    folder = root.resolve()
    while not (folder / ".git").exists():
        if folder.parent == folder:
            return []  # outside a repository
        folder = folder.parent
        if (folder / ".gitignore").is_file():
            found.insert(0, (str(folder), patterns(folder / ".gitignore", notes)))
    return found


def _is_ignored(path: str, ignored: Ignored, *, folder: bool) -> bool:
    """Return whether git ignores a path; the innermost .gitignore with a matching pattern decides."""
    for base, spec in reversed(ignored):
        relative = os.path.relpath(os.path.realpath(path) if not path.startswith(base) else path, base)
        decided = spec.check_file(relative + "/" if folder else relative).include
        if decided is not None:
            return bool(decided)
    return False
