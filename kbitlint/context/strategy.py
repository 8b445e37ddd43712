"""Types of the fields of a TrainingContext. This module imports no other module of the package."""

from __future__ import annotations

import enum

from kbitlint.lazy_dataclass import dataclass


class Strategy(enum.Enum):
    """The way in which the ranks of a run share the model."""

    SINGLE = "single"
    DDP = "ddp"
    FSDP1 = "fsdp1"
    FSDP2 = "fsdp2"
    ZERO2 = "zero2"
    ZERO3 = "zero3"


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """The checkpointing that the training loop itself sets up before the first step."""

    enabled: bool
    use_reentrant: bool | None = None
    """The value that the loop passes to ``torch.utils.checkpoint``.

    None if it passes none; torch then checkpoints reentrantly.
    """
    installs_hook: bool = False
    """Whether the loop also makes the output of the input embedding require grad, as transformers 5 does."""
    every: int = 1
    """Every how many layers checkpoint."""
