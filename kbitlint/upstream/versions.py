"""Library versions of a script: pinned ones, else those installed with kbitlint, else the newest modelled ones."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import TYPE_CHECKING

from kbitlint.runtime import content

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kbitlint.facts.values import Call
    from kbitlint.upstream.calls import Api

#: versions to assume for packages that are not installed with kbitlint
NEWEST = {
    "transformers": "5.23.0",
    "peft": "0.21.2",
    "trl": "1.16.0",
    "torch": "2.13.0",
    "accelerate": "1.15.0",
    "deepspeed": "0.19.8",
}

#: first versions that accept ``gradient_checkpointing_kwargs``
KWARGS_SINCE = {"transformers": "4.35", "peft": "0.7"}

#: number of folders to search from a script upwards, and bytes to read of a requirements file
MAX_UP = 6
MAX_TEXT = 200_000


@functools.cache
def installed() -> Mapping[str, str]:
    """Return the installed versions of the modelled packages; the newest modelled version of a missing one."""
    from importlib.metadata import PackageNotFoundError, distribution  # takes 10 ms to import

    found = dict(NEWEST)
    for package in NEWEST:
        try:
            known = distribution(package)
        except PackageNotFoundError:
            continue
        # `version` of importlib.metadata parses the whole metadata as an email, which takes 10 ms to import as well
        stated = _VERSION.search(known.read_text("METADATA") or "")
        found[package] = stated[1] if stated else known.version
    return found


_VERSION = re.compile(r"^Version: (\S+)$", re.MULTILINE)


_PIN = re.compile(r"\b(transformers|peft|trl|deepspeed)\s*(?:\[[\w,-]*\]\s*)?(==|~=|<)\s*(\d[\d.]*)")
#: a longer number is no version, and Python refuses to convert thousands of digits
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9}){0,9}(?!\d)")
#: texts of several lines, and comments
_PROSE = re.compile(r"(\"\"\"|\'\'\').*?\1|#[^\n]*", re.DOTALL)
#: a line of prose that installs packages, or lists nothing but requirements
_INSTALLS = re.compile(
    r"\bpip3?\b|\binstall\b|^[\s#\"',\[\]]*(?:[\w-]+(?:\[[\w,-]*\])?\s*[=<>~!]=?=?\s*[\w.*]+(?:[\s\"',\]]+|$))+$"
)
_PIN_FILES = ("requirements*.txt", "pyproject.toml", "setup.cfg", "setup.py", "environment*.y*ml")
_LAST_BEFORE = {("transformers", 5): "4.57.1", ("peft", 1): "0.21.2", ("trl", 1): "0.29.0"}


def pins(text: str) -> dict[str, str]:
    """Return the versions that a text pins: ``transformers==4.38``, ``transformers<5``."""
    found = {}
    for package, sign, version in _PIN.findall(text):
        major, *rest = number(version) or (0, -1)
        if rest == [-1]:
            continue  # no version has so many digits
        below = _LAST_BEFORE.get((package, major)) if rest in ([], [0]) else version
        found[package] = (below or version) if sign == "<" else version
    return found


@functools.cache
def pinned(folder: Path) -> Mapping[str, str]:
    """Return the versions that the requirements files pin, in a folder and those above it in the same repository."""
    found: dict[str, str] = {}
    for place in (folder, *folder.parents)[:MAX_UP]:
        for pattern in _PIN_FILES:
            for path in sorted(path for path in place.glob(pattern) if path.is_file()):  # skips named pipes
                with contextlib.suppress(OSError):
                    found = pins(content.head(path, MAX_TEXT).decode("utf-8", "replace")) | found
        if (place / ".git").exists():
            break
    return found


def versions_for(path: Path, text: str) -> Mapping[str, str]:
    """Return the versions of a script: pinned by it, else by its project, else installed, else the newest modelled ones."""
    return {**installed(), **pinned(path.resolve().parent), **pins(_said(text))}


def _said(text: str) -> str:
    """Return a script without the prose of its comments and docstrings; their lines that install packages remain."""
    return _PROSE.sub(lambda found: "\n".join(filter(_INSTALLS.search, found[0].split("\n"))), text)


def number(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version; an empty tuple if there are none.

    >>> number("5.23.0.dev0")
    (5, 23, 0)
    """
    found = _NUMBER.match(version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def row(rows: Iterable[Api], versions: Mapping[str, str]) -> Api | None:
    """Return the first row that holds for these versions; None if none does."""
    for api in rows:
        have = number(versions.get(api.library, ""))
        if (not api.since or have >= number(api.since)) and (not api.until or have < number(api.until)):
            return api
    return None


def takes_kwargs(call: Call, versions: Mapping[str, str]) -> bool:
    """Return whether a call accepts ``gradient_checkpointing_kwargs`` in these versions."""
    library = "peft" if call.callee.startswith("peft.") else "transformers"
    return number(versions.get(library, NEWEST[library])) >= number(KWARGS_SINCE[library])
