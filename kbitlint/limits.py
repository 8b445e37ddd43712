"""Limits for reading files: a larger file is skipped with a reason, a longer one is followed in part, some are left out.

The defaults keep the cost of an untrusted file near 2 s and 300 MB. A project with larger files raises them under
``[tool.kbitlint]``.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator


#: what the audit of a folder leaves out beside hidden folders and what git ignores, as lines of a .gitignore
EXCLUDED = ("__pycache__", "node_modules", "site-packages", "venv", "build", "dist")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one run."""

    max_file_size: int = 2_000_000
    """Bytes of a script, a training configuration or the code of a notebook."""
    max_tokens: int = 200_000
    """Tokens of a script, or values of a configuration or notebook.

    One megabyte of ordinary Python has about 200,000 tokens.
    """
    max_steps: int = 120_000
    """Statements and expressions that are followed in one file, over all its paths."""
    exclude: tuple[str, ...] = EXCLUDED
    """What audits of folders leave out, as lines of a .gitignore."""
    root: str = ""
    """The folder to which these lines refer; empty for the working folder."""


DEFAULT = Limits()
_CURRENT: ContextVar[Limits] = ContextVar("limits", default=DEFAULT)


def current() -> Limits:
    """Return the limits of the current run."""
    return _CURRENT.get()


@contextlib.contextmanager
def held_to(limits: Limits) -> Iterator[None]:
    """Set the limits for the code inside the context."""
    before = _CURRENT.set(limits)
    try:
        yield
    finally:
        _CURRENT.reset(before)
