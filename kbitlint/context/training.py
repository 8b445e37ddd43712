"""How the model will be trained, as far as it is known."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbitlint.context import launchers
from kbitlint.context.arguments import arguments_fields, trainer_fields
from kbitlint.context.strategy import Checkpointing, Strategy


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

        Args:
            arguments: The arguments.
            model: The model that Trainer is given. Where ``ddp_find_unused_parameters`` is unset, Trainer passes True
                for whatever is no PreTrainedModel, a PeftModel included (``Trainer._build_accelerator_args``).
        """
        return cls(**arguments_fields(arguments, model))

    @classmethod
    def from_trainer(cls, trainer: Any) -> TrainingContext:
        """Read a Trainer: its arguments, and what its accelerator was really made with."""
        return cls(**trainer_fields(trainer))

    @classmethod
    def from_launcher_file(cls, file: str | Path) -> TrainingContext:
        """Read the file of a launcher: accelerate's or DeepSpeed's, told apart by their keys.

        Raises:
            KbitlintError: The file cannot be read, belongs to neither, or a key of it has a value that neither takes.
        """
        return cls(**launchers.training_file(Path(file)))

    @classmethod
    def from_accelerate_config(cls, file: str | Path) -> TrainingContext:
        """Read the YAML or JSON file that ``accelerate config`` writes.

        Raises:
            KbitlintError: The file cannot be read or a key of it has a value that accelerate does not take.
        """
        return cls(**launchers.accelerate(Path(file)))

    @classmethod
    def from_deepspeed_config(cls, file: str | Path) -> TrainingContext:
        """Read a DeepSpeed JSON file; what it leaves to Trainer with ``auto`` stays unknown.

        Raises:
            KbitlintError: The file cannot be read or a key of it has a value that DeepSpeed does not take.
        """
        return cls(**launchers.deepspeed(Path(file)))

    def updated(self, other: TrainingContext) -> TrainingContext:
        """This context with whatever the other one knows in its place."""
        known = {f.name: getattr(other, f.name) for f in dataclasses.fields(other) if getattr(other, f.name) is not None}
        return dataclasses.replace(self, **known)
