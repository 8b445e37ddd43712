"""The project around a file: its root, and the names of files in it, which are the same from every folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kbitlint.runtime import content


def root_of(start: Path) -> Path:
    """Return the root of the project around a folder; the folder itself if it is in none."""
    return project_of(start) or start.resolve()


def project_of(start: Path) -> Path | None:
    """Return the git repository around a folder, else the folder of its pyproject.toml; None if it is in neither."""
    folder = start.resolve()
    above = (folder, *folder.parents)
    for mark in (".git", "pyproject.toml"):
        for place in above:
            if (place / mark).exists():
                return place
    return None


def name_of(root: Path) -> str:
    """Return the name in pyproject.toml of a project; empty if it has none, or cannot be read."""
    try:
        text = content.head(root / "pyproject.toml", 65_536).decode("utf-8", "replace")
    except OSError:
        return ""
    section = re.search(r"^\[project\]\s*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.search(r"""^name\s*=\s*["']([\w.-]{1,80})["']""", section[1], re.MULTILINE) if section else None
    return found[1] if found else ""


def file_of(target: str, file: str) -> str:
    """Return the path of a violation's file from the working folder; rules name the file relative to the target."""
    if file == target:
        return file
    path = Path(target.partition(":")[0] or ".")
    folder = path if path.is_dir() else path.parent
    there = folder / file
    return str(there) if there.exists() or not Path(file).exists() else file


def name_in(root: Path, path: str) -> str:
    """Return the name of an existing path in a project, with ``/``; other texts, such as Hub ids, unchanged.

    A path outside the project keeps its full name. The function of a target such as ``train.py:build`` follows it.
    """
    place, colon, attribute = path.partition(":")
    if not place or not os.path.lexists(place):
        return path
    there = Path(place).resolve()
    name = there.relative_to(root).as_posix() if there.is_relative_to(root) else there.as_posix()
    return f"{name}{colon}{attribute}"
