"""Where a page comes from: the project, the versions of the libraries, the day."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from kbitlint.files.project import name_of, root_of
from kbitlint.runtime import distributions
from kbitlint.upstream.features import PACKAGES


def project() -> str:
    """Return the name of the project around the working folder: that of pyproject.toml, else that of its folder."""
    root = root_of(Path.cwd())
    return name_of(root) or root.name or "kbitlint"


def words() -> tuple[str, ...]:
    """Return the day, and the installed libraries with their versions."""
    return (_day(), *_versions())


def _day() -> str:
    """Return the day in UTC, or that of SOURCE_DATE_EPOCH, with which builds are reproduced."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(epoch) if epoch.isdecimal() and len(epoch) < 12 else None  # year 5138
    now = dt.datetime.now(dt.timezone.utc) if seconds is None else dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
    return now.date().isoformat()


def _versions() -> list[str]:
    return [f"{package} {version}" for package in PACKAGES if (version := distributions.version(package))]
