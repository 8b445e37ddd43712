"""The answer of ``kbitlint fit``, as data: whether a run fits its cards, with how much room, and what would make it fit."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.memory_result import Phase, StepMemory
    from kbitlint.step_plan import StepPlan


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings of one run."""

    plan: StepPlan
    batch: int
    """Sequences in the batch of one rank."""
    seq_len: int
    """Tokens in each sequence."""
    mode: str
    """The mode of checkpointing."""
    rank: int | None
    """The rank of the LoRA that is attached; None if the model brings its own adapters."""
    double: bool = False
    """Whether double quantization is turned on."""
    packed: bool = False
    """Whether kbitlint's unsafe fix packs experts."""
    strategy: str = "single"
    offload: bool = False
    """Whether sharded weights lie in host memory."""
    stored: bool = False
    """Whether packed weights are stored as bfloat16, which FSDP can shard."""
    own_batch: bool = False
    """Whether the batch is the caller's own, so that no other one is measured."""


@dataclass(frozen=True, slots=True)
class RankMemory:
    """The memory of one rank."""

    peak: int
    """The most bytes that its tensors hold: ``torch.cuda.max_memory_allocated``."""
    on_card: int
    """Bytes of the process on the card, with CUDA's context and fragments of the allocator."""
    host: int
    """Bytes of optimizer state and weights that lie in host memory."""
    peak_at: str


class Owner(enum.Enum):
    """The call of a script that takes a setting."""

    ARGUMENTS = "TrainingArguments"
    QUANTIZATION = "BitsAndBytesConfig"
    ADAPTERS = "LoraConfig"


@dataclass(frozen=True, slots=True)
class Setting:
    """One argument of a call of a script."""

    owner: Owner
    name: str
    value: bool | int | str | Mapping[str, bool | int]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a run."""

    name: str
    saves: int
    """Bytes of the peak that it saves alone."""
    cost: str
    """What it costs, in words."""
    price: float
    """Its place in the order: percent of a step's time, and more than 100 for what changes the training itself."""
    flags: str
    """What to paste into a script."""
    fits: bool
    """Whether the run fits with this change alone."""
    settings: tuple[Setting, ...] = ()
    """The arguments that make it in a script. Empty if no argument does."""


@dataclass(frozen=True, slots=True)
class Written:
    """The changes that were written into a script, after the changed script was seen to fit."""

    file: str
    changes: tuple[str, ...]
    """Their names."""
    diff: str


@dataclass(frozen=True, slots=True)
class Grid:
    """The bytes on a card of many batches."""

    batches: tuple[int, ...]
    """Sequences in a batch, for each row."""
    lengths: tuple[int, ...]
    """Tokens in a sequence, for each column."""
    on_card: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class FitResult:
    """Whether a run fits its cards."""

    target: str
    summary: str
    card: str
    total: int
    """Bytes of the card that a process can use."""
    gpus: int
    asked: Setup
    memory: RankMemory
    """The memory of the run as it was asked for."""
    changes: tuple[Change, ...]
    """Every change that saves something, cheapest first. Empty if the run fits."""
    chosen: tuple[Change, ...]
    """The cheapest changes that make the run fit together. Empty if it fits without any, or with none."""
    answer: Setup | None
    """The run with these changes; None if nothing makes it fit."""
    answer_memory: RankMemory | None
    largest: tuple[tuple[int, int], ...] = ()
    """(batch, tokens) of the largest batches of ``answer`` that fit; each was checked by a traced step."""
    steps: int = 0
    """How many steps were traced."""
    notes: tuple[str, ...] = ()
    step: StepMemory | None = None
    """The step of the run as it was asked for, moment by moment."""
    grid: Grid | None = None
    """The bytes of other batches of ``answer``, or of the run as it was asked for if nothing makes it fit."""
    written: Written | None = None
    """The changes that ``--fix`` wrote. The other fields are then those of the changed script."""
    phases: tuple[tuple[Phase, int], ...] = ()
    """The parts of ``answer``, or of the run as it was asked for, beside its steps; each with its bytes on the card."""

    @property
    def fits(self) -> bool:
        """Return whether the run fits as it was asked for: its steps, and what it loads, evaluates and generates."""
        return self.memory.on_card <= self.total and not self.too_large

    @property
    def too_large(self) -> tuple[Phase, ...]:
        """Return the parts of the run beside its steps that do not fit in any way.

        Saving and merging are no part of the run itself.
        """
        possible = {phase.name for phase, on_card in self.phases if on_card <= self.total} | {"saving", "merging"}
        return tuple(phase for phase, on_card in self.phases if on_card > self.total and phase.name not in possible)

    @property
    def room(self) -> int:
        """Return the bytes that are left on the card. It is negative if the run does not fit."""
        return self.total - self.memory.on_card
