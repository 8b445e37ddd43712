"""Which versions a script will run with: those installed beside kbitlint, else the newest that are modelled."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from kbitlint.source.frameworks import NEWEST, Api

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@functools.cache
def installed() -> Mapping[str, str]:
    """The versions of the modelled packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = dict(NEWEST)
    for package in NEWEST:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def number(version: str) -> tuple[int, ...]:
    """A version as numbers, as far as it has some.

    >>> number("5.23.0.dev0")
    (5, 23, 0)
    """
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def row(rows: Iterable[Api], versions: Mapping[str, str]) -> Api | None:
    """The row that holds for these versions, or None."""
    for api in rows:
        have = number(versions.get(api.library, ""))
        if (not api.since or have >= number(api.since)) and (not api.until or have < number(api.until)):
            return api
    return None
