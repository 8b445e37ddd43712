"""How much of a file is looked at: a larger one is skipped with that reason, a longer one is followed in part.

The bounds keep what somebody else's file costs near 2 s and 300 MB. A project with larger files raises them under
``[tool.kbitlint]``.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one run."""

    max_file_size: int = 2_000_000
    """Bytes of a script or a training configuration, and of the code of a notebook."""
    max_tokens: int = 200_000
    """Words and signs of a script, or values of a configuration or notebook; a megabyte of ordinary Python has as many."""
    max_steps: int = 120_000
    """Statements and expressions that are followed in one file, over all its paths."""


DEFAULT = Limits()
_CURRENT: ContextVar[Limits] = ContextVar("limits", default=DEFAULT)


def current() -> Limits:
    """Return the bounds of this run."""
    return _CURRENT.get()


@contextlib.contextmanager
def held_to(limits: Limits) -> Iterator[None]:
    """Hold what runs inside to these bounds."""
    before = _CURRENT.set(limits)
    try:
        yield
    finally:
        _CURRENT.reset(before)
