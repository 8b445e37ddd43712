"""The value of ``use_reentrant`` for a checkpointed layer. Scripts and models share it."""

from __future__ import annotations

import enum


class Reentry(enum.Enum):
    """The value of ``use_reentrant`` for one checkpointed module."""

    NO = "False"
    YES = "True"
    UNSET = "unset"
    """The argument is not passed. torch warns and uses True (still so in torch 2.13)."""
    UNKNOWN = "unknown"
    """The arguments of the bound checkpoint function cannot be read."""

    @property
    def reentrant(self) -> bool:
        """Return whether the checkpoint is certainly reentrant."""
        return self in (Reentry.YES, Reentry.UNSET)
