"""Facts of training loops that a file writes itself: what one round does, in the order of the text."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from kbitlint.facts.values import Call


class Act(enum.Enum):
    """The effect of a statement of a loop."""

    BACKWARD = "computes gradients"
    STEP = "changes parameters"
    CLEAR = "clears gradients"


class Origin(enum.Enum):
    """The origin of a loss through which no gradient can flow."""

    NUMBER = "is a number of Python's, which .item() returns"
    DETACHED = "is detached from the model"
    WITHOUT_GRAD = "is computed where gradients are off"
    WITHOUT_LABELS = "is None, because the model is called without labels"
    FORWARD = "comes from a forward that a script wraps in no_grad"
    DATA = "is made of the batch alone"
    USED = "has gone backward before, which frees its graph"


class Oversight(enum.Enum):
    """What a loop leaves out."""

    SCALED_CLIP = "clips gradients that the scaler has multiplied"
    NO_ACCUMULATION = "takes a step in each round, and its Accelerator divides each loss"
    KEPT_GRAPHS = "keeps the graph of each loss of an evaluation"
    LATE_CLIP = "clips gradients after the step that used them"
    EARLY_SCHEDULE = "moves the learning rate before the step"
    SKIPPED_SCALER = "goes backward past the scaler of its Accelerator"
    NEVER_CLEARED = "never clears gradients"
    ACCUMULATES_ONE = "accumulates by an Accelerator that counts to one"
    UNPREPARED_STEP = "accumulates, and steps an optimizer that its Accelerator does not know"
    CLEARS_EACH = "clears gradients in each round, and takes a step in some"
    DIVIDES_TWICE = "divides a loss that its Accelerator divides too"
    CLIPS_TO_ZERO = "clips gradients to a norm of zero"
    UNSCALED_STEP = "steps an optimizer past the scaler that has multiplied its gradients"
    NO_UPDATE = "never updates its scaler"
    UNSCALES_EACH = "takes the scale out in each round, and takes a step in some"
    FAST_SCHEDULE = "moves a schedule in each round, which counts steps"
    LEFT_ASLEEP = "evaluates, and goes on in the mode of the evaluation"
    EPOCH_SCHEDULE = "leaves a schedule that counts steps to Lightning, which moves it in each epoch"
    SLOW_SCHEDULE = "moves a schedule in each epoch, which counts batches"


@dataclass(frozen=True, slots=True)
class LoopFault:
    """One place of a loop that leaves something out."""

    kind: Oversight
    line: int
    """The line of the clip, of the Accelerator's construction, or of the sum."""
    name: str
    """The function that clips, the step of the optimizer, or the sum."""
    owner: str
    """The name of the scaler or of the Accelerator; empty for a sum."""


@dataclass(frozen=True, slots=True)
class LoopAct:
    """One act of a loop."""

    act: Act
    name: str
    """The name of the loss or of the optimizer; of the model, if its gradients are cleared."""
    line: int
    origin: Origin | None = None
    """How the loss of a backward pass is made; None if a gradient may flow, or if it is not known."""
    model: str = ""
    """The name of the model that was called without labels."""


@dataclass(frozen=True, slots=True)
class DeadLoss:
    """A backward pass that raises, because no graph is behind its loss, as one path finds it."""

    call: Call
    """The backward pass."""
    origin: Origin
    by: Call | None = None
    """The call that switched gradients off, or the earlier backward pass; None if a context around the model did."""


@dataclass(frozen=True, slots=True)
class OwnLoop:
    """One loop, the innermost one around its acts."""

    line: int
    acts: tuple[LoopAct, ...]
    certain: bool = True
    """Whether each round performs all acts, as opposed to some rounds only."""

    @property
    def cleared(self) -> LoopAct | None:
        """Return the act that clears all gradients before the optimizer's step; None if the step sees any."""
        round_twice, found = self.acts * 2, None
        passes = [place for place, one in enumerate(self.acts) if one.act is Act.BACKWARD]
        for start in passes:
            rest = round_twice[start + 1 : start + 1 + len(self.acts)]
            step = next((place for place, one in enumerate(rest) if one.act is Act.STEP), None)
            clear = next((one for one in rest[: step or 0] if one.act is Act.CLEAR), None)
            if step is None or clear is None:
                return None
            found = clear
        return found if self.certain else None
