"""The result of auditing source files."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint import engine
    from kbitlint.result import Skip


@dataclass(frozen=True, slots=True)
class ScriptAudit:
    """The result of auditing source files."""

    outcome: engine.Outcome
    files: int = 0
    """How many files were audited."""
    read: int = 0
    """How many of them concern the training of a k-bit model."""
    skips: tuple[Skip, ...] = field(default=())
    silenced: int = 0
    """How many violations a comment silences."""
    decided: frozenset[tuple[str, int | None]] = frozenset()
    """(file, line) of each call in an imported file after which a script trains the model."""
