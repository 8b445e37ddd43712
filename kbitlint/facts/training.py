"""Trainings of a script: on one path, and on every path that reaches the call."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.values import Call, Span, Value


class Loop(enum.Enum):
    """The owner of the training loop."""

    TRAINER = "Trainer"
    OWN = "a loop of the file"


@dataclass(frozen=True, slots=True)
class Batch:
    """What a script makes sure of the token ids and labels on which a model is trained."""

    token: int | None = None
    """A token id that the batch holds, and no smaller one is known; None if none is known."""
    ignored: bool = False
    """Whether every label is -100."""
    rows: int | None = None
    """The number of rows; None if it is not known."""


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a model on one path, with the model's state at its start."""

    call: Call
    """The construction of the Trainer, or the call of ``backward()``."""
    loop: Loop
    model: ModelState
    model_id: int = 0
    arguments: Call | None = None
    """The call that makes the TrainingArguments; None if it is not known."""
    fp16: Value = UNKNOWN
    bf16: Value = UNKNOWN
    zero_stage: Value = None
    """The ZeRO stage of DeepSpeed; None without DeepSpeed."""
    fsdp: bool | None = False
    """Whether FSDP shards the model; None if it is not known."""
    flattened: bool = False
    """Whether it is FSDP1 for certain, which flattens the parameters of a unit into one tensor."""
    distributed: bool = False
    """Whether the loop wraps the model for several ranks."""
    find_unused: Value = None
    """The argument ``find_unused_parameters`` of DDP; None if it is not passed."""
    optimized: bool = True
    """Whether an optimizer may receive the model's parameters. If none does, ``backward()`` only computes gradients."""
    early_optimizer: Call | None = None
    """The call that made an optimizer of the base model's parameters before the adapters were attached.

    None if an optimizer may hold the adapters' parameters.
    """
    loop_span: Span | None = None
    """The loop of the file around the ``backward()``."""
    name: str = ""
    """The name of the model's variable where it is trained."""
    flags: tuple[str, ...] = ()
    """The options of the command line that lead to the path: ``--bits 4``."""
    sleeps: Call | None = None
    """The call in the loop that leaves the model in eval mode for the next iteration; None if there is none."""
    batch: Batch | None = None
    """The data that it trains on; None if nothing is known of it."""
    deepspeed: tuple[tuple[str, Value], ...] = ()
    """The plain values of the DeepSpeed configuration that the arguments name, by dotted key: ``fp16.enabled``."""

    @property
    def lets_ddp_search(self) -> bool:
        """Return whether Trainer passes ``find_unused_parameters=True`` to DDP: its default for a ``PeftModel``."""
        if self.loop is not Loop.TRAINER or self.fsdp or self.zero_stage is not None:
            return False
        wrapped = self.model.adapters is not None or not self.model.certain
        return wrapped if self.find_unused is None else self.find_unused is True


@dataclass(frozen=True, slots=True)
class Trained:
    """One call that trains a model, on every path that reaches it."""

    paths: tuple[Training, ...]
    all_paths: tuple[Training, ...] = ()
    """Every path that reaches the call, if ``paths`` are only some of them."""

    @property
    def where(self) -> str:
        """Return the options of the command line that lead to ``paths``, for a message; empty if all paths count."""
        if not self.all_paths:
            return ""
        shared = set.intersection(*(set(training.flags) for training in self.paths))
        others = {flag for training in self.all_paths if training not in self.paths for flag in training.flags}
        leading = sorted(shared - others)
        return f" (with {' '.join(leading)})" if leading else " (where the model is quantized)"

    @property
    def call(self) -> Call:
        """Return the call that trains the model."""
        return self.paths[0].call

    @property
    def models(self) -> tuple[ModelState, ...]:
        """Return the model's state at the start of the training on each path."""
        return tuple(training.model for training in self.paths)

    @property
    def certain(self) -> bool:
        """Return whether the interpreter followed every operation on the model on every path."""
        return all(model.certain for model in self.models)

    @property
    def falls_asleep(self) -> Call | None:
        """Return the call that leaves the checkpointed model in eval mode for the second round; None if one path has none."""
        checkpoints = all(training.sleeps and training.model.checkpointing.enabled for training in self.paths)
        return self.paths[0].sleeps if checkpoints and self.certain else None

    @property
    def optimized(self) -> bool:
        """Return whether an optimizer may receive the model's parameters on every path."""
        return all(training.optimized for training in self.paths)

    @property
    def kbit(self) -> bool:
        """Return whether the model is quantized on every path."""
        return all(model.kbit for model in self.models)
