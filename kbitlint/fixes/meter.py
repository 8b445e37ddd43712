"""The memory of one rank under any settings of a run. Each distinct step is traced once.

Imports of torch, PEFT and ``kbitlint.model`` are inside functions: audits of scripts and files need none of them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.context.launch import Launch
from kbitlint.errors import KbitlintError
from kbitlint.fit_result import RankMemory
from kbitlint.fixes.budget import AS_IT_IS, PREPARATIONS, UNSAFE, prepared_twin
from kbitlint.upstream.cards import CONTEXT, WORKSPACE

if TYPE_CHECKING:
    from kbitlint.context import TrainingContext
    from kbitlint.fit_result import Setup
    from kbitlint.fixes.lora import Lora
    from kbitlint.memory_result import StateMemory
    from kbitlint.model.memory.ranks import Units
    from kbitlint.upstream.cards import Card

#: The share that fragments of torch's allocator add to the peak. Public records show 4 to 18 %, less with expandable segments.
FRAGMENTS = 1.05


class Meter:
    """Measures settings of a run on copies of one model without weights."""

    def __init__(self, model: Any, context: TrainingContext, card: Card, ranks: int, lora: Lora | None) -> None:
        from kbitlint.memory_result import OFF, ON
        from kbitlint.model.inputs.positions import length_for, most_positions
        from kbitlint.model.inspect.walk import collect
        from kbitlint.model.layers.adapters import base_of
        from kbitlint.model.layers.checkpointing import supports_checkpointing
        from kbitlint.model.memory.resident import saved_by_double_quantization

        facts = collect(model)
        self.model, self.context, self.card, self.ranks = model, context, card, ranks
        self.lora = None if facts.has_adapters else lora
        self.summary = facts.summary()
        self.seq_len = length_for(model, context.seq_len)
        self.most_tokens = most_positions(model)
        self.modes = (OFF, ON) if supports_checkpointing(base_of(model)) else (OFF,)
        self.saved_by_double = saved_by_double_quantization(model)
        self._twins: dict[tuple[bool, int | None], Any] = {}
        self._units: dict[tuple[bool, int | None], Units] = {}
        self._known: dict[tuple[bool, int | None], dict[Any, Any]] = {}

    @property
    def steps(self) -> int:
        """Return how many distinct steps were traced."""
        return sum(map(len, self._known.values()))

    @property
    def has_packable_experts(self) -> bool:
        """Return whether kbitlint's unsafe fix packs experts of the model."""
        return self._twin(packed=True, rank=self.lora.rank if self.lora else None) is not None

    def fits(self, setup: Setup) -> bool:
        """Return whether a rank fits its card."""
        return self.rank(setup).on_card <= self.card.total

    def rank(self, setup: Setup) -> RankMemory:
        """Return the memory of one rank.

        Raises:
            KbitlintError: The step cannot run.
        """
        from kbitlint.model.memory.ranks import rank_bytes

        state = self.state(setup)
        step = state.steps[setup.mode]
        launch = Launch(setup.strategy, 1 if setup.strategy == "single" else self.ranks, setup.offload)
        peak, host = rank_bytes(self._units[setup.packed, setup.rank], state, step, launch)
        peak += self.card.workspace - WORKSPACE
        if setup.double:
            peak -= self.saved_by_double
        return RankMemory(peak, round(peak * FRAGMENTS) + CONTEXT, host, step.peak_at)

    def state(self, setup: Setup) -> StateMemory:
        """Return the memory of a run on one card."""
        from kbitlint.model.memory.step_memory import measure

        key = (setup.packed, setup.rank)
        twin = self._twin(packed=setup.packed, rank=setup.rank)
        context = dataclasses.replace(self.context, batch_size=setup.batch, seq_len=setup.seq_len)
        state = measure(
            AS_IT_IS, twin, context, setup.plan, modes=(setup.mode,), owned=True, known=self._known.setdefault(key, {})
        )
        if state.failure or setup.mode not in state.steps:
            raise KbitlintError(f"the step cannot be measured: {state.failure or f'the class has no mode {setup.mode!r}'}")
        return state

    def _twin(self, *, packed: bool, rank: int | None) -> Any:
        from kbitlint.model.memory.ranks import units_of

        key = (packed, rank)
        if key not in self._twins:
            lora = dataclasses.replace(self.lora, rank=rank) if self.lora is not None and rank is not None else None
            twin = prepared_twin(self.model, PREPARATIONS[UNSAFE if packed else AS_IT_IS], self.context, lora)
            self._twins[key] = twin
            if twin is not None:
                self._units[key] = units_of(twin)
        return self._twins[key]
