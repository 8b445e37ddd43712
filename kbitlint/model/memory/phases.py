"""The parts of a run beside its training steps: loading, evaluation, generation, saving, merging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.context.passes import passes_of
from kbitlint.model.build.factory import is_trainer
from kbitlint.model.memory.passes import PassMeter
from kbitlint.model.memory.resident import other_models
from kbitlint.model.memory.sharding import loading_of_rank, saving_of_rank
from kbitlint.model.memory.storing import loading, merging, saving
from kbitlint.step_plan import Passes
from kbitlint.upstream.cards import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from kbitlint.context import TrainingContext
    from kbitlint.context.launch import Launch
    from kbitlint.memory_result import Phase, StateMemory
    from kbitlint.model.memory.ranks import Rank
    from kbitlint.step_plan import StepPlan

#: strategies under which each rank loads, saves and merges as a single card does
_WHOLE = ("single", "ddp", "zero1", "zero2")


class BesideSteps:
    """The parts of one run beside its steps.

    Args:
        live: The Trainer, or the model itself.
        model: The model as it is trained, live or on meta. It is only read.
        launch: The ranks of the run.
        device: The device whose kernels and allocator are simulated.
    """

    def __init__(self, live: Any, model: nn.Module, launch: Launch, device: str = "cuda") -> None:
        self.model, self.launch, self.device = model, launch, device
        self.others = other_models(live, model)
        self.passes = passes_of(live) if live is not model and is_trainer(live) else Passes()

    def phases(
        self, twin: nn.Module, context: TrainingContext, plan: StepPlan, state: StateMemory, rank: Rank | None
    ) -> Iterator[Phase]:
        """Yield the parts of the run for one state of the model, in the order of a run.

        Args:
            twin: A copy of the model in that state, with its adapters. It is only read.
            context: Autocast and length.
            plan: The loss of the run.
            state: What its steps take.
            rank: The rank whose memory is asked for; None for a run on one card.
        """
        if not state.steps:
            return
        held = sum(state.resident.values()) + state.optimizer + state.buckets + (WORKSPACE if self.device == "cuda" else 0)
        if rank is None or self.launch.strategy in _WHOLE:
            yield loading(self.model, self.device)
        else:
            yield from loading_of_rank(self.model, state.resident, rank, self.device)
        yield from PassMeter(twin, context, plan, held, rank, self.device).measured(self.passes)
        saved = saving(twin, held)
        if saved is not None:
            yield saved if rank is None or not rank.shards[0] else saving_of_rank(rank, saved.host, held)
        if self.launch.strategy not in ("device_map", "tp"):
            yield from merging(twin, self.device)
