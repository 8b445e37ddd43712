"""Facts of a folder that a run resumes from: the steps and the optimizer's parameters, as its files record them."""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ResumeFacts:
    """The files that Trainer saves beside the weights. A count is None if its file is missing or cannot be read."""

    named_step: int | None = None
    """The N of a folder that is called ``checkpoint-N``."""
    state_step: int | None = None
    """``global_step`` of trainer_state.json."""
    schedule_step: int | None = None
    """``last_epoch`` of scheduler.pt: how often the schedule was stepped."""
    optimizer: bool = False
    """Whether optimizer.pt, or another form of it, is there."""
    scheduler: bool = False
    """Whether scheduler.pt is there."""
    optimizer_parameters: int | None = None
    """Parameters in the groups of optimizer.pt."""
    further_weights: bool = False
    """Whether weights of trained parameters may be in other files: further adapters, a value head, shards."""
