"""Installed distributions: their versions and entry points, read from the folders of ``sys.path``.

``importlib.metadata`` reads the same files, and importing it takes 20 ms: it brings ``email``, ``zipfile`` and ``socket``.
It is asked only where packages may lie elsewhere than in folders.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEPARATORS = re.compile(r"[-_.]+")
_VERSION = re.compile(r"^Version: (\S+)$", re.MULTILINE)


def version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    if _lie_elsewhere():
        from importlib import metadata  # takes 20 ms, and only archives need it

        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None
    folder = _folders(_path()).get(_normalized(package), "")
    stated = _VERSION.search(_text(folder, "METADATA") or _text(folder, "PKG-INFO"))
    return stated[1] if stated else None


def entry_points(group: str) -> list[str]:
    """Return the objects that installed distributions enter in a group, sorted and each once."""
    if _lie_elsewhere():
        from importlib import metadata  # as above

        return sorted({entry.value for entry in metadata.entry_points(group=group)})
    texts = (_text(folder, "entry_points.txt") for folder in _folders(_path()).values())
    return sorted({value for text in texts if group in text for value in _values(text, group)})


def _lie_elsewhere() -> bool:
    """Return whether a distribution may lie in an archive or an egg, or is known to a finder of imports alone."""
    others = (finder for finder in sys.meta_path if finder is not PathFinder)
    return any(hasattr(finder, "find_distributions") for finder in others) or any(
        entry.endswith(".egg") or os.path.isfile(entry)  # noqa: PTH113  # a Path for each takes longer than the question
        for entry in _path()
    )


def _path() -> tuple[str, ...]:
    """Return the path of imports. Python ignores entries that are no strings."""
    return tuple(entry for entry in sys.path if isinstance(entry, str))


@functools.cache
def _folders(path: tuple[str, ...]) -> dict[str, str]:
    """Return the folder of metadata of each distribution by its normalized name. The first on the path counts."""
    found: dict[str, str] = {}
    for entry in path:
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208  # a Path for each of hundreds takes long
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                found.setdefault(_normalized(name[: -len(".dist-info")].partition("-")[0]), os.path.join(entry, name))  # noqa: PTH118  # as above
    return found


def _text(folder: str, name: str) -> str:
    """Return a file of a distribution's metadata; empty if there is none."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:  # noqa: PTH118, PTH123  # as above
            return file.read()
    except OSError:
        return ""


def _values(text: str, group: str) -> Iterator[str]:
    """Yield the right sides of the lines ``name = value`` in the section of a group."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif section == group and "=" in line and not line.startswith("#"):
            yield line.partition("=")[2].strip()


def _normalized(name: str) -> str:
    """Return the name that equals all spellings of a package's name (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()
