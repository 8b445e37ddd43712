"""The files of a folder that can hold a training, as git sees it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.files import content
from kbitlint.source.documents import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEVER = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})
Ignored = list[tuple[str, Any]]
"""(folder, the patterns of its .gitignore), from the outermost to the innermost."""


def walk(root: Path) -> list[Path]:
    """The files of a folder and its folders, sorted; without what git ignores, hidden folders and links to folders."""
    return sorted(Path(path) for path in _walk(str(root), _above(root)))


def _walk(folder: str, ignored: Ignored) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == ".gitignore" and entry.is_file() for entry in entries):  # reading a named pipe would wait for ever
        ignored = [*ignored, (folder, _patterns(Path(folder) / ".gitignore"))]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if (
                not entry.name.startswith(".")
                and entry.name not in _NEVER
                and not _is_ignored(entry.path, ignored, folder=True)
            ):
                yield from _walk(entry.path, ignored)
        elif entry.name.endswith(SUFFIXES) and entry.is_file() and not _is_ignored(entry.path, ignored, folder=False):
            yield entry.path


def _above(root: Path) -> Ignored:
    """The .gitignore files between the top of the repository and the folder."""
    found: Ignored = []
    folder = root.resolve()
    while not (folder / ".git").exists():
        if folder.parent == folder:
            return []  # no repository
        folder = folder.parent
        if (folder / ".gitignore").is_file():
            found.insert(0, (str(folder), _patterns(folder / ".gitignore")))
    return found


def _patterns(path: Path) -> Any:
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(content.read(path).decode("utf-8", "replace").splitlines())
    except (OSError, ValueError):
        return GitIgnoreSpec([])


def _is_ignored(path: str, ignored: Ignored, *, folder: bool) -> bool:
    """Whether git ignores a path: the innermost .gitignore that says something decides."""
    for base, patterns in reversed(ignored):
        relative = os.path.relpath(os.path.realpath(path) if not path.startswith(base) else path, base)
        decided = patterns.check_file(relative + "/" if folder else relative).include
        if decided is not None:
            return bool(decided)
    return False
