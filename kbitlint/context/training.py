"""The class TrainingContext."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kbitlint.context import launchers
from kbitlint.context.arguments import accelerator_fields, arguments_fields, trainer_fields
from kbitlint.context.strategy import Checkpointing, Strategy
from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """The known settings of a model's future training.

    A field is None if its value is unknown. A rule that needs such a field is skipped, and the report lists the
    skip.
    """

    autocast_dtype: str | None = None
    """``bfloat16`` or ``float16``; ``float32`` if the loop certainly opens no autocast region."""
    grad_scaler: bool | None = None
    """Whether a gradient scaler scales the loss."""
    strategy: Strategy | None = None
    offload: bool | None = None
    """Whether the weights that the strategy shards lie in host memory between uses."""
    find_unused_parameters: bool | None = None
    """DDP's argument of this name."""
    static_graph: bool | None = None
    """Whether DDP gets ``static_graph=True``: the graph is equal in every step. DDP then finds unused parameters by itself."""
    gradient_checkpointing: Checkpointing | None = None
    """The checkpointing that the loop sets up."""
    fsdp_checkpointing: bool | None = None
    """Whether FSDP wraps the layers in its own checkpoints."""
    sets_training_mode: bool | None = None
    """Whether the loop calls ``model.train()`` before the first step, as Trainer does."""
    loss: str | None = None
    """``full`` if the loop computes logits of a whole batch, ``fused`` if its head and loss run in tiles."""
    accumulation: int | None = None
    """Batches before each step of the optimizer."""
    optimizer: str | None = None
    """The optimizer's name in the spelling of ``TrainingArguments.optim`` or of the DeepSpeed file."""
    learning_rate: float | None = None
    """The highest learning rate of the run."""
    beta: float | None = None
    """The factor of the log-probabilities in a preference loss, if the loss is scaled by one."""
    evaluates: bool | None = None
    """Whether an evaluation lies between two steps, and no checkpoint is saved right after it."""
    cast_by: str | None = None
    """The method of a user's callback that casts the model when the training begins, after the audit."""
    batch_size: int | None = None
    """Sequences in one batch of one rank."""
    seq_len: int | None = None
    """Tokens per sequence."""
    world_size: int | None = None
    """Number of processes of the run."""
    device: str | None = None
    """The accelerator on which this rank trains: ``cuda:1``. None also for the CPU."""

    @property
    def waits_for_every_gradient(self) -> bool:
        """Return whether each step waits for a gradient of every trainable parameter on every rank."""
        return self.strategy is Strategy.DDP and self.find_unused_parameters is False and not self.static_graph

    @property
    def shards_parameters(self) -> bool:
        """Return whether the ranks hold shards of flattened parameters. Each unit then needs one dtype."""
        return self.strategy in (Strategy.FSDP1, Strategy.FSDP2, Strategy.ZERO3)

    @classmethod
    def from_training_arguments(cls, arguments: Any, model: Any = None) -> TrainingContext:
        """Return the context of transformers' ``TrainingArguments``. A TRL config extends that class.

        Args:
            arguments: The arguments.
            model: The model of the Trainer. If ``ddp_find_unused_parameters`` is unset, Trainer passes True for any
                model that is no PreTrainedModel. A PeftModel is none (``Trainer._build_accelerator_args``).
        """
        return cls(**arguments_fields(arguments, model))

    @classmethod
    def from_trainer(cls, trainer: Any) -> TrainingContext:
        """Return the context of a Trainer: its arguments, overridden by the settings of its accelerator."""
        return cls(**trainer_fields(trainer))

    @classmethod
    def from_accelerator(cls, accelerator: Any) -> TrainingContext:
        """Return the context of an ``accelerate.Accelerator``."""
        return cls(**accelerator_fields(accelerator))

    @classmethod
    def from_launcher_file(cls, file: str | Path) -> TrainingContext:
        """Return the context of a launch file of accelerate or DeepSpeed; its keys identify the format.

        Raises:
            KbitlintError: If the file cannot be read, has neither format, or has a key with a wrong value.
        """
        return cls(**launchers.training_file(Path(file)))

    @classmethod
    def from_accelerate_config(cls, file: str | Path) -> TrainingContext:
        """Return the context of a YAML or JSON file that ``accelerate config`` writes.

        Raises:
            KbitlintError: If the file cannot be read or has a key with a value that accelerate rejects.
        """
        return cls(**launchers.accelerate(Path(file)))

    @classmethod
    def from_deepspeed_config(cls, file: str | Path) -> TrainingContext:
        """Return the context of a DeepSpeed JSON file. A value ``auto``, which Trainer fills in, stays None.

        Raises:
            KbitlintError: If the file cannot be read or has a key with a value that DeepSpeed rejects.
        """
        return cls(**launchers.deepspeed(Path(file)))

    def updated(self, other: TrainingContext) -> TrainingContext:
        """Return this context with every field that is not None in the other one replaced by the other's value."""
        known = {f.name: getattr(other, f.name) for f in dataclasses.fields(other) if getattr(other, f.name) is not None}
        return dataclasses.replace(self, **known)
