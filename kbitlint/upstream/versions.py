"""Library versions of a script: pinned ones, else those that fit beside them: the installed or the newest modelled ones."""

from __future__ import annotations

import contextlib
import functools
from types import MappingProxyType
from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.facts.guards import PROSE
from kbitlint.runtime import content, distributions
from kbitlint.runtime.observations import remembered

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
    "datasets": "5.2.0",
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
    return {package: distributions.version(package) or newest for package, newest in NEWEST.items()}


#: a requirement, as pip, conda (``trl=0.8``) and Poetry (``trl = "^0.8"``) write it
_REQUIREMENT = re.compile(
    r"(?<![\w-])(transformers|peft|trl|deepspeed|accelerate|datasets|unsloth|huggingface[-_]hub)"
    r"(?:[ \t]?\[[\w,-]{0,80}\])?(?:[ \t]?\(|[ \t]?=[ \t]?[\"'](?=[\^~<>=]))?"
    r"((?:[ \t]{0,2}(?:==|~=|<=|>=|!=|[<>^~]|=(?=\d))[ \t]{0,2}\d[\w.]{0,40}(?:\.\*)?(?:[ \t]{0,2},)?)+)"
)
_BOUND = re.compile(r"(==|~=|<=|>=|!=|[<>^~=])[ \t]{0,2}(\d[\d.]*)")
#: a longer number is no version, and Python refuses to convert thousands of digits
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9}){0,9}(?!\d)")
#: a line with so many pins describes an environment
_PIN, _ENVIRONMENT = re.compile(r"==\d"), 3
#: a line of prose that installs packages, or lists nothing but requirements
_INSTALLS = re.compile(
    r"\bpip3?\b|\binstall\b|^[\s#\"',\[\]]*(?:[\w-]+(?:\[[\w,-]*\])?\s*[=<>~!]=?=?\s*[\w.*]+(?:[\s\"',\]]+|$))+$"
)
_PIN_FILES = ("requirements*.txt", "pyproject.toml", "setup.cfg", "setup.py", "environment*.y*ml", "PKG-INFO")
#: the metadata of an unpacked wheel; a folder with several of them holds many packages, and none of them speaks for a script
_METADATA = "*.dist-info/METADATA"
_OWN = re.compile(r"\AMetadata-Version:.*?^Name: (\w+)\s+^Version: (\d[\d.]*)", re.DOTALL | re.MULTILINE)
_LAST_BEFORE = {("transformers", 5): "4.57.1", ("peft", 1): "0.21.2", ("trl", 1): "0.29.0", ("huggingface_hub", 1): "0.36.2"}


class Versions(dict[str, str]):
    """The version of each library, and those of them that the script or its project declares."""

    declared: Mapping[str, str] = MappingProxyType({})
    """The lowest version with which the script certainly runs, by library: a pinned one, or the lower bound of a range."""


def bounds_in(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the newest version that each requirement of a text allows, and the lowest one. Open ends are left out.

    A requirement is ``transformers==4.38`` or ``transformers>=4.31,<5``.
    """
    newest: dict[str, str] = {}
    lowest: dict[str, str] = {}
    for name, bounds in _REQUIREMENT.findall(text):
        package = name.replace("-", "_")
        for sign, version in _BOUND.findall(bounds):
            parts = number(version)
            if not parts:
                continue  # no version has so many digits
            if sign in (">=", ">"):
                lowest[package] = version
            elif sign != "!=":
                newest[package] = _newest_below(package, sign, version, parts)
    return newest, lowest


def _before(parts: tuple[int, ...]) -> str:
    """Return a version below another one, and above all others below it: ``0.8.99`` for ``0.9``, ``4.57.1`` for ``4.57.2``."""
    last = max(index for index, part in enumerate(parts) if part)
    rest = (99,) if last < 2 else ()
    return ".".join(map(str, (*parts[:last], parts[last] - 1, *rest)))


def _required(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the bounds of a requirements file; the metadata of a library's own package tell its version."""
    newest, lowest = bounds_in(text)
    own = _OWN.match(text)
    return ({**newest, own[1]: own[2]} if own is not None and own[1] in NEWEST else newest), lowest


def _newest_below(package: str, sign: str, version: str, parts: tuple[int, ...]) -> str:
    """Return the newest version that a bound allows, as far as the rows of this package need it."""
    major, *rest = parts
    if sign == "<":
        return _LAST_BEFORE.get((package, major), version) if not any(rest) else _before(parts)
    if sign == "^":
        return _LAST_BEFORE.get((package, major + 1), version)
    return version


@remembered(None)
def pinned(folder: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the newest and the lowest versions that requirements files allow, in a folder and those above it.

    The search ends at the root of the repository.
    """
    found: dict[str, str] = {}
    floors: dict[str, str] = {}
    for place in (folder, *folder.parents)[:MAX_UP]:
        metadata = content.files_like(place, _METADATA)
        files = (path for pattern in _PIN_FILES for path in content.files_like(place, pattern))
        for path in (*files, *(metadata if len(metadata) == 1 else ())):
            with contextlib.suppress(OSError):
                newest, lowest = _required(content.head(path, MAX_TEXT).decode("utf-8", "replace"))
                found, floors = newest | found, lowest | floors
        if content.exists(place / ".git"):
            break
    return found, floors


def versions_for(path: Path, text: str) -> Versions:
    """Return the versions of a script: pinned by it or its project, else the installed or newest ones that fit beside these."""
    project, floors = pinned(path.resolve().parent)
    own, lowest = bounds_in(_said(text)) if _REQUIREMENT.search(text) else ({}, {})
    pins, least = {**project, **own}, {**floors, **lowest}
    chosen = {name: version for name, version in pins.items() if name in NEWEST}
    found = Versions({**installed(), **_fitting(pins, least), **chosen})
    found.declared = {**least, **chosen}
    return found


def _fitting(pins: Mapping[str, str], least: Mapping[str, str]) -> dict[str, str]:
    """Return the versions that pip chooses beside pinned ones, where these exclude the installed versions."""
    if not pins:
        return {}
    from kbitlint.upstream.resolution import fitting  # most scripts pin nothing

    found = fitting(_numbers(pins), _numbers(least))
    return {name: version for name, version in found if number(version) < number(installed()[name])}


def _numbers(versions: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {name: number(version) for name, version in versions.items()}


def _said(text: str) -> str:
    """Return a script without the prose of its comments and docstrings; their lines that install packages remain."""
    return PROSE.sub(lambda found: "\n".join(filter(_pins, found[0].split("\n"))), text)


def _pins(line: str) -> bool:
    """Return whether a line of prose installs packages, lists requirements, or pins at least three packages."""
    return _INSTALLS.search(line) is not None or len(_PIN.findall(line)) >= _ENVIRONMENT


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


def declared(versions: Mapping[str, str]) -> Mapping[str, str]:
    """Return the versions that a script or its project declares, by library; empty if it declares none."""
    return versions.declared if isinstance(versions, Versions) else {}


def short(version: str) -> str:
    """Return a version without its third number.

    >>> short("4.57.1")
    '4.57'
    """
    return ".".join(version.split(".")[:2])
