"""Where a run finds a report: in the log, and in a file of its output directory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kbitlint.files import atomic

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("kbitlint")


def log(text: str, *, warns: bool) -> None:
    """Log a report, as a warning if it holds findings."""
    _log.log(logging.WARNING if warns else logging.INFO, "%s", text)


def write(folder: Path | None, name: str, content: str) -> None:
    """Write a report as JSON into the output directory, which is made where it is missing; None writes no file."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.replace(folder / name, (content + "\n").encode())
