"""How the model will be trained, as far as it is known."""

from __future__ import annotations

import dataclasses
import enum
import os
from dataclasses import dataclass
from pathlib import Path
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
    static_graph: bool | None = None
    """Whether DDP is told that every step uses the same graph, which makes it find unused parameters by itself."""
    gradient_checkpointing: Checkpointing | None = None
    fsdp_checkpointing: bool | None = None
    """Whether FSDP wraps the layers in checkpoints of its own."""
    sets_training_mode: bool | None = None
    """Whether the loop calls ``model.train()`` before the first step, as Trainer does."""
    optimizer: str | None = None
    batch_size: int | None = None
    seq_len: int | None = None
    world_size: int | None = None
    """How many processes share the run."""
    device: str | None = None
    """The accelerator that this rank trains on: ``cuda:1``; None where it is not known or is the CPU."""

    @property
    def waits_for_every_gradient(self) -> bool:
        """Whether the ranks wait for a gradient of every trainable parameter before the next step."""
        return self.strategy is Strategy.DDP and self.find_unused_parameters is False and not self.static_graph

    @property
    def shards_parameters(self) -> bool:
        """Whether the ranks hold shards of flattened parameters, which must be of one dtype in each unit."""
        return self.strategy in (Strategy.FSDP1, Strategy.FSDP2, Strategy.ZERO3)

    @classmethod
    def from_training_arguments(cls, arguments: Any, model: Any = None) -> TrainingContext:
        """Read transformers' ``TrainingArguments`` (or a TRL config, which extends them).

        transformers 5 calls the arguments ``activation_checkpointing*`` and falls back to non-reentrant where no
        kwargs are given (``PreTrainedModel.activation_checkpointing_enable``); transformers 4 calls them
        ``gradient_checkpointing*`` and falls back to reentrant.

        Args:
            arguments: The arguments.
            model: The model that Trainer is given. Where ``ddp_find_unused_parameters`` is unset, Trainer passes True
                for whatever is no PreTrainedModel, a PeftModel included (``Trainer._build_accelerator_args``).
        """
        renamed = hasattr(arguments, "activation_checkpointing")
        prefix = "activation_checkpointing" if renamed else "gradient_checkpointing"
        enabled = bool(getattr(arguments, prefix, False))
        kwargs = getattr(arguments, f"{prefix}_kwargs", None) or {"use_reentrant": not renamed}
        fp16, bf16 = bool(getattr(arguments, "fp16", False)), bool(getattr(arguments, "bf16", False))
        optimizer = getattr(arguments, "optim", None)
        strategy = _strategy_of(arguments, renamed=renamed)
        deepspeed = strategy in (Strategy.ZERO2, Strategy.ZERO3)
        known = not (deepspeed and (fp16 or bf16))  # DeepSpeed casts the model instead of opening an autocast region
        return cls(
            autocast_dtype=("float16" if fp16 else "bfloat16" if bf16 else "float32") if known else None,
            grad_scaler=fp16 and not deepspeed,
            strategy=strategy,
            find_unused_parameters=_find_unused(arguments, model, enabled=enabled),
            static_graph=bool(getattr(arguments, "ddp_static_graph", None)),
            gradient_checkpointing=Checkpointing(enabled, kwargs.get("use_reentrant") if enabled else None, renamed),
            fsdp_checkpointing=_fsdp_checkpointing(arguments),
            sets_training_mode=True,
            optimizer=None if optimizer is None else str(getattr(optimizer, "value", optimizer)),
            batch_size=getattr(arguments, "per_device_train_batch_size", None),
            seq_len=_seq_len(arguments),
            world_size=_positive(getattr(arguments, "world_size", None)),
            device=_accelerator(getattr(arguments, "device", None)),
        )

    @classmethod
    def from_trainer(cls, trainer: Any) -> TrainingContext:
        """Read a Trainer: its arguments, and what its accelerator was really made with."""
        read = cls.from_training_arguments(trainer.args, trainer.model)
        handler = getattr(getattr(trainer, "accelerator", None), "ddp_handler", None)
        if handler is None:
            return read
        return dataclasses.replace(
            read,
            find_unused_parameters=bool(getattr(handler, "find_unused_parameters", read.find_unused_parameters)),
            static_graph=bool(getattr(handler, "static_graph", read.static_graph)),
        )

    @classmethod
    def from_accelerate_config(cls, file: str | Path) -> TrainingContext:
        """Read the YAML or JSON file that ``accelerate config`` writes.

        Raises:
            KbitlintError: The file cannot be read or a key of it has a value that accelerate does not take.
        """
        from kbitlint.context.launchers import accelerate

        return accelerate(Path(file))

    @classmethod
    def from_deepspeed_config(cls, file: str | Path) -> TrainingContext:
        """Read a DeepSpeed JSON file; what it leaves to Trainer with ``auto`` stays unknown.

        Raises:
            KbitlintError: The file cannot be read or a key of it has a value that DeepSpeed does not take.
        """
        from kbitlint.context.launchers import deepspeed

        return deepspeed(Path(file))

    def updated(self, other: TrainingContext) -> TrainingContext:
        """This context with whatever the other one knows in its place."""
        known = {f.name: getattr(other, f.name) for f in dataclasses.fields(other) if getattr(other, f.name) is not None}
        return dataclasses.replace(self, **known)


def _strategy_of(arguments: Any, *, renamed: bool) -> Strategy | None:
    """The strategy that the arguments, or the launcher through the environment, choose."""
    config = getattr(arguments, "deepspeed", None)
    config = getattr(getattr(arguments, "hf_deepspeed_config", None), "config", config)
    if config:
        from kbitlint.context.launchers import zero_stage

        return zero_stage(config)
    fsdp = getattr(arguments, "fsdp_config", None)
    if getattr(arguments, "fsdp", None):
        version = fsdp.get("version", fsdp.get("fsdp_version")) if isinstance(fsdp, dict) else None
        return Strategy.FSDP2 if str(version or (2 if renamed else 1)) == "2" else Strategy.FSDP1
    kind = str(getattr(getattr(arguments, "distributed_state", None), "distributed_type", "")).rpartition(".")[2]
    if kind == "FSDP":
        return Strategy.FSDP2 if os.environ.get("FSDP_VERSION") == "2" else Strategy.FSDP1
    if kind == "NO":
        return Strategy.SINGLE
    return Strategy.DDP if kind in ("MULTI_GPU", "MULTI_CPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_HPU") else None


def _find_unused(arguments: Any, model: Any, *, enabled: bool) -> bool | None:
    given = getattr(arguments, "ddp_find_unused_parameters", None)
    if given is not None or model is None:
        return given
    if not any(base.__name__ == "PreTrainedModel" for base in type(model).__mro__):
        return True
    checkpoints = getattr(model, "is_activation_checkpointing", getattr(model, "is_gradient_checkpointing", False))
    return not (checkpoints or enabled)


def _fsdp_checkpointing(arguments: Any) -> bool | None:
    config = getattr(arguments, "fsdp_config", None)
    value = config.get("activation_checkpointing") if isinstance(config, dict) and getattr(arguments, "fsdp", None) else None
    return None if value is None else str(value).lower() == "true"


def _seq_len(arguments: Any) -> int | None:
    """Tokens a sequence: SFT, DPO and reward configs cap the whole of it, GRPO's prompt and completion apart."""
    for name in ("max_length", "max_seq_length"):
        found = _positive(getattr(arguments, name, None))
        if found is not None:
            return found
    parts = [_positive(getattr(arguments, name, None)) for name in ("max_prompt_length", "max_completion_length")]
    return None if None in parts else sum(part for part in parts if part)


def _accelerator(device: Any) -> str | None:
    return None if device is None or str(device) == "cpu" else str(device)


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
