"""What decides the memory of one training step besides the model: optimizer, loss, accumulation, attention."""

from __future__ import annotations

import dataclasses
import enum

from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.lazy_dataclass import dataclass


class Loss(enum.Enum):
    """Where the logits of a step live."""

    FULL = "full"
    """The model computes its own loss over all logits and the loop drops its outputs, as transformers' Trainer does."""
    FUSED = "fused"
    """Head and loss run in tiles, so that no logits exist, as in TRL's SFTTrainer since ``add_fused_lm_head``."""
    KEPT = "kept"
    """As ``full``, and the loop holds the outputs until the step ends: ``outputs = model(...)``."""


#: what a report says about each loss
SAID = {
    Loss.FULL: "loss over full logits, as transformers' Trainer (--loss fused: TRL's SFTTrainer)",
    Loss.FUSED: "loss in tiles without logits, as TRL's SFTTrainer (--loss full: transformers' Trainer)",
    Loss.KEPT: "loss over full logits, and the loop keeps the model's outputs (--loss kept)",
}
ATTENTIONS = ("eager", "sdpa")


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The settings of a measured step."""

    optimizer: str = "adamw"
    """A name of ``kbitlint.upstream.optimizers``, in the spelling of ``TrainingArguments.optim``."""
    every: int | None = None
    """Measures one more step, in which every n-th layer checkpoints. None measures it with none and with all."""
    loss: Loss = Loss.FULL
    accumulation: int = 1
    """Batches before each step of the optimizer. From the second batch on, the gradients of the first are held."""
    attention: str | None = None
    """One of ``ATTENTIONS``; None for that of the model."""

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 2:
            raise KbitlintError(f"every must be 2 or more, not {self.every}")
        if self.accumulation < 1:
            raise KbitlintError(f"accumulation must be 1 or more, not {self.accumulation}")
        if self.attention is not None and self.attention not in ATTENTIONS:
            known = ", ".join(ATTENTIONS)
            raise KbitlintError(f"attention {self.attention!r} is none of {known}{did_you_mean(self.attention, ATTENTIONS)}")

    def but(self, **changes: object) -> StepPlan:
        """Return the plan with some fields replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # the fields' own types


def loss_named(name: str) -> Loss:
    """Return the loss of a name.

    Raises:
        KbitlintError: There is no such loss.
    """
    known = [loss.value for loss in Loss]
    if name not in known:
        raise KbitlintError(f"loss {name!r} is none of {', '.join(known)}{did_you_mean(name, known)}")
    return Loss(name)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A pass over evaluation data."""

    batch: int
    """Sequences in a batch of one rank."""
    kept: int = 0
    """Batches whose logits are held on the card at once; 0 if none are kept."""
    words: str = ""
    """What is kept, in words."""
    batches: int = 0
    """Batches whose logits the host receives in the end."""
    joins: bool = True
    """Whether kept logits are joined after each batch, which copies them (``eval_do_concat_batches``)."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation of completions between steps."""

    batch: int
    """Sequences that are generated at once."""
    completion: int
    """The most tokens of a completion."""
    prompt: int | None = None
    """The most tokens of a prompt; None if nothing bounds it."""


@dataclass(frozen=True, slots=True)
class Passes:
    """The passes of a run that hold no gradients."""

    evaluation: Evaluation | None = None
    generation: Generation | None = None
