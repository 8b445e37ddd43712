"""The values of a context that are more than a number or a word; no module of this package is imported here."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Strategy(enum.Enum):
    """How the ranks of a run share the model."""

    SINGLE = "single"
    DDP = "ddp"
    FSDP1 = "fsdp1"
    FSDP2 = "fsdp2"
    ZERO2 = "zero2"
    ZERO3 = "zero3"


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """What the training loop itself does about checkpointing before the first step."""

    enabled: bool
    use_reentrant: bool | None = None
    """What it passes to ``torch.utils.checkpoint``; None where it passes nothing and torch decides (reentrant)."""
    installs_hook: bool = False
    """Whether it also makes the embeddings' output require grad, as transformers 5 does."""
