"""The number of files that this process has audited. The command line shows it during the audit of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Item = TypeVar("Item")
_COUNT = {"all": 0, "done": 0}


def add(files: int) -> None:
    """Add files to those that will be audited."""
    _COUNT["all"] += files


def done(files: int) -> None:
    """Count files as audited."""
    _COUNT["done"] += files


def counted(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, and count each as audited when the next one is asked for."""
    for item in items:
        yield item
        done(1)


def text() -> str:
    """Return what is done as a part of a line; empty if nothing is counted."""
    return f" {_COUNT['done']} of {_COUNT['all']} files," if _COUNT["all"] else ""
