"""The state of a model at one point of a script, as far as the file tells. Frozen, and free of ``ast``."""

from __future__ import annotations

from dataclasses import dataclass, field

from kbitlint.facts.layers import Reentry
from kbitlint.facts.values import UNKNOWN, Call, Value


@dataclass(frozen=True, slots=True)
class CheckpointingState:
    """How the layers of a model checkpoint, and which call decided it last."""

    enabled: bool | None = False
    """None where it cannot be told."""
    reentry: Reentry = Reentry.UNKNOWN
    by: Call | None = None
    """The call whose arguments decide: ``prepare_model_for_kbit_training``, ``TrainingArguments``, ..."""
    kwargs: str = ""
    """The argument of ``by`` that holds ``use_reentrant``; empty where ``by`` takes it itself."""
    flag: str = ""
    """The argument of ``by`` that is ``use_reentrant`` under a name of its own, of a program that makes up for reentry:
    inputs require grad, and DDP looks for no unused parameters."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """Adapters on a model."""

    by: Call
    """The call that attached or loaded them."""
    config: Value = UNKNOWN
    """The call that made their configuration."""
    trainable: bool | None = True
    """None where it cannot be told."""
    dtype: Value = "float32"
    """Of their weights."""
    frozen_by: Call | None = None
    """The later call that froze them."""
    kept: bool = True
    """Whether anything holds the PeftModel: where ``get_peft_model`` stands alone, only the base is left."""


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """What config.json of a checkpoint says that a script names, where it is on this machine."""

    model_type: str = ""
    tied: bool | None = None
    """Whether embeddings and head are one; None where its class decides."""
    experts: int = 0
    remote: bool = False
    """Whether it brings its own code."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is known of a model at one point of a path through the file."""

    load: Call | None = None
    """The call that loaded it; None where it comes from elsewhere."""
    method: Value = UNKNOWN
    """How it is quantized: ``bitsandbytes``, another method, None where it surely is not."""
    bits: Value = UNKNOWN
    quantization: Call | None = None
    """The call that made its quantization config."""
    dtype: Value = UNKNOWN
    """Of what is not quantized."""
    checkpointing: CheckpointingState = field(default_factory=CheckpointingState)
    hooks: tuple[Call, ...] = ()
    """The calls that made the embeddings' output require grad, in their order."""
    prepared: Call | None = None
    adapters: Adapters | None = None
    base_frozen: bool | None = None
    """Whether the base is frozen; None as loading leaves it, or where it cannot be told."""
    training_mode: bool | None = None
    """False after loading and ``eval()``, True after ``train()``."""
    certain: bool = True
    """Whether nothing that cannot be followed has touched it."""
    named: CheckpointConfig | None = None
    """What is known of its checkpoint."""

    @property
    def kbit(self) -> bool:
        """Whether it surely is quantized."""
        return isinstance(self.method, str)
