"""The memory of one rank under any settings of a run. Each distinct step is traced once.

Imports of torch, PEFT and ``kbitlint.model`` are inside functions: audits of scripts and files need none of them.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from kbitlint.context.launch import Launch
from kbitlint.errors import KbitlintError
from kbitlint.fit_result import RankMemory
from kbitlint.fixes.budget import AS_IT_IS, PREPARATIONS, UNSAFE, gives_back, prepared_twin
from kbitlint.upstream.cards import WORKSPACE

if TYPE_CHECKING:
    from kbitlint.context import TrainingContext
    from kbitlint.fit_result import Setup
    from kbitlint.fixes.lora import Lora
    from kbitlint.memory_result import Phase, StateMemory
    from kbitlint.model.memory.ranks import Rank
    from kbitlint.model.memory.step_memory import StepMeter
    from kbitlint.upstream.cards import Card


class Meter:
    """Measures settings of a run on copies of one model without weights."""

    def __init__(
        self, model: Any, context: TrainingContext, card: Card, ranks: int, lora: Lora | None, live: Any = None
    ) -> None:
        from kbitlint.memory_result import OFF, ON
        from kbitlint.model.inputs.extent import shape_for
        from kbitlint.model.inputs.positions import most_positions
        from kbitlint.model.inputs.structure import described
        from kbitlint.model.inputs.supplied import is_supplied
        from kbitlint.model.inspect.walk import collect
        from kbitlint.model.layers.adapters import base_of
        from kbitlint.model.layers.checkpointing import stride_of, supports_checkpointing, takes_strides
        from kbitlint.model.memory.resident import other_models, saved_by_double_quantization

        facts = collect(model)
        self.model, self.context, self.card, self.ranks = model, context, card, ranks
        self.live = model if live is None else live
        self.others = other_models(self.live, model)
        self.lora = None if facts.has_adapters else lora
        self.summary = facts.summary()
        self.batch, self.seq_len = shape_for(model, context.batch_size, context.seq_len)
        self.own_batch = is_supplied(described(model))
        self.most_tokens = most_positions(model)
        self.modes = (OFF, ON) if supports_checkpointing(base_of(model)) else (OFF,)
        self.takes_strides = takes_strides()
        self.stride = stride_of(model)
        self.saved_by_double = saved_by_double_quantization(model)
        self._meters: dict[tuple[bool, int | None, int], StepMeter] = {}
        self._ranks: dict[tuple[bool, int | None, Launch, bool], Rank] = {}
        self._states: dict[Setup, StateMemory] = {}

    @property
    def steps(self) -> int:
        """Return how many distinct steps were traced."""
        return sum(len(meter.known) for meter in self._meters.values())

    @functools.cached_property
    def has_packable_experts(self) -> bool:
        """Return whether kbitlint's unsafe fix packs experts of the model."""
        from kbitlint.model.layers.adapters import base_of

        return gives_back(base_of(self.model), self.context)

    @functools.cached_property
    def has_integers(self) -> bool:
        """Return whether packed 4-bit weights are stored as integers, which no strategy shards."""
        from kbitlint.model.memory.ranks import units_of

        return bool(units_of(self.model).integers)

    def fits(self, setup: Setup) -> bool:
        """Return whether a rank fits its card."""
        return self.rank(setup).on_card <= self.card.total

    def most(self, setup: Setup, name: str) -> int:
        """Return the largest ``batch`` or ``seq_len`` of a run that is measured."""
        from kbitlint.model.inputs.extent import most_sequences

        return most_sequences(self.model, setup.seq_len) if name == "batch" else self.most_tokens

    def rank(self, setup: Setup) -> RankMemory:
        """Return the memory of one rank.

        Raises:
            KbitlintError: The step cannot run.
        """
        state = self.state(setup)
        step = state.steps[setup.mode]
        peak = step.peak + self._further(setup)
        return RankMemory(peak, self.card.on_card(peak), state.host, step.peak_at)

    def moments(self, setup: Setup) -> dict[str, int]:
        """Return the bytes at each moment of a step of one rank.

        Raises:
            KbitlintError: As for ``rank``.
        """
        further = self._further(setup)
        return {moment.name: moment.total + further for moment in self.state(setup).steps[setup.mode].timeline}

    def phases(self, setup: Setup) -> tuple[tuple[Phase, int], ...]:
        """Return the parts of a run beside its steps, each with the bytes that it needs on the card; 0 where that is unknown.

        Raises:
            KbitlintError: As for ``rank``.
        """
        from kbitlint.model.memory.phases import BesideSteps

        twin = self._meter(setup).twin
        context = dataclasses.replace(self.context, batch_size=setup.batch, seq_len=setup.seq_len)
        launch = Launch(setup.strategy, self.ranks if setup.strategy != "single" else 1, setup.offload)
        beside = BesideSteps(self.live, self.model, launch, self.card.device)
        further = self._further(setup)
        found = beside.phases(twin, context, setup.plan, self.state(setup), self._rank(setup, twin))
        return tuple((one, 0 if one.peak is None else self.card.on_card(one.peak + further)) for one in found)

    def _further(self, setup: Setup) -> int:
        """Return the bytes that a card needs beside those of a traced step, negative if it needs less."""
        workspace = self.card.workspace - WORKSPACE if self.card.device == "cuda" else 0
        saved = self.saved_by_double if setup.double else 0
        return workspace - (saved // self.ranks if setup.strategy == "device_map" else saved)

    def state(self, setup: Setup) -> StateMemory:
        """Return the memory of one rank, by kind.

        Raises:
            KbitlintError: The step cannot run, or the strategy refuses the model.
        """
        if setup in self._states:
            return self._states[setup]
        meter = self._meter(setup)
        context = dataclasses.replace(self.context, batch_size=setup.batch, seq_len=setup.seq_len)
        rank = self._rank(setup, meter.twin)
        state = meter.measure(AS_IT_IS, context, setup.plan, modes=(setup.mode,), rank=rank, beside=self.others)
        if state.failure or setup.mode not in state.steps:
            raise KbitlintError(f"the step cannot be measured: {state.failure or f'the class has no mode {setup.mode!r}'}")
        return self._states.setdefault(setup, state)

    def _rank(self, setup: Setup, twin: Any) -> Rank | None:
        from kbitlint.model.memory.ranks import Rank, units_of

        if setup.strategy == "single":
            return None
        launch = Launch(setup.strategy, self.ranks, setup.offload)
        key = (setup.packed, setup.rank, launch, setup.stored)
        if key not in self._ranks:
            self._ranks[key] = Rank(launch, units_of(twin, stored=setup.stored))
        return self._ranks[key]

    def _meter(self, setup: Setup) -> StepMeter:
        """Return what measures the steps of the model that a run trains."""
        from kbitlint.model.memory.step_memory import StepMeter
        from kbitlint.model.memory.tensor_parallel import split

        parts = self.ranks if setup.strategy == "tp" else 1
        key = (setup.packed, setup.rank, parts)
        if key not in self._meters:
            lora = self.lora
            if lora is not None and setup.rank is not None:
                lora = dataclasses.replace(lora, rank=setup.rank)
            twin = prepared_twin(self.model, PREPARATIONS[UNSAFE if setup.packed else AS_IT_IS], self.context, lora)
            self._meters[key] = StepMeter(twin if parts == 1 else split(twin, parts), self.card.device)
        return self._meters[key]
