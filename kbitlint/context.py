"""How the model will be trained, as far as it is known."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """How the model will be trained. What is unknown is None, and a rule that needs it is skipped and says so."""

    autocast_dtype: str | None = None
    """``bfloat16`` or ``float16``; ``float32`` where it is known that the loop opens no autocast region."""
    grad_scaler: bool | None = None
    strategy: Strategy | None = None
    find_unused_parameters: bool | None = None
    gradient_checkpointing: Checkpointing | None = None
    sets_training_mode: bool | None = None
    """Whether the loop calls ``model.train()`` before the first step, as Trainer does."""
    optimizer: str | None = None
    batch_size: int | None = None
    seq_len: int | None = None

    @property
    def waits_for_every_gradient(self) -> bool:
        """Whether the ranks wait for a gradient of every trainable parameter before the next step."""
        return self.strategy is Strategy.DDP and self.find_unused_parameters is False

    @property
    def shards_parameters(self) -> bool:
        """Whether the ranks hold shards of flattened parameters, which must be of one dtype in each unit."""
        return self.strategy in (Strategy.FSDP1, Strategy.FSDP2, Strategy.ZERO3)

    @classmethod
    def from_training_arguments(cls, arguments: Any) -> TrainingContext:
        """Read transformers' ``TrainingArguments`` (or a TRL config, which extends them).

        transformers 5 calls the arguments ``activation_checkpointing*`` and falls back to non-reentrant where no
        kwargs are given (``PreTrainedModel.activation_checkpointing_enable``); transformers 4 calls them
        ``gradient_checkpointing*`` and falls back to reentrant.
        """
        renamed = hasattr(arguments, "activation_checkpointing")
        prefix = "activation_checkpointing" if renamed else "gradient_checkpointing"
        enabled = bool(getattr(arguments, prefix, False))
        kwargs = getattr(arguments, f"{prefix}_kwargs", None) or {"use_reentrant": not renamed}
        fp16, bf16 = bool(getattr(arguments, "fp16", False)), bool(getattr(arguments, "bf16", False))
        optimizer = getattr(arguments, "optim", None)
        return cls(
            autocast_dtype="float16" if fp16 else "bfloat16" if bf16 else "float32",
            grad_scaler=fp16,
            find_unused_parameters=getattr(arguments, "ddp_find_unused_parameters", None),
            gradient_checkpointing=Checkpointing(enabled, kwargs.get("use_reentrant") if enabled else None, renamed),
            sets_training_mode=True,
            optimizer=None if optimizer is None else str(getattr(optimizer, "value", optimizer)),
            batch_size=getattr(arguments, "per_device_train_batch_size", None),
            seq_len=getattr(arguments, "max_length", None),
        )
