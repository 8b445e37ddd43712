"""Facts of a rehearsal: what the user's script raised, and the batches that reached its training."""

from __future__ import annotations

import enum
from typing import Any

from kbitlint.lazy_dataclass import dataclass
from kbitlint.violation import Location


class Phase(enum.Enum):
    """The part of a script, seen from its first training step."""

    BEFORE = "before the first training step"
    AFTER = "after training"


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that ended the script."""

    kind: str
    """The name of its class."""
    message: str
    """The library's message, in one line."""
    file: str
    """The user's file, as the user named it."""
    line: int
    """The 1-based line of the user's innermost frame. In a notebook: the line in its cell."""
    function: str
    """The function of the user's that ran; ``<module>`` outside of functions."""
    by: str
    """The function that raised, with its module: ``transformers.trainer.Trainer.__init__``."""
    phase: Phase
    cell: str = ""
    """The cell of a notebook, ``cell 3``; empty for other files."""
    rank: int | None = None
    """The rank that raised, where rank 0 did not; None for rank 0."""

    @property
    def text(self) -> str:
        """Return the class and the message, as Python prints them."""
        return f"{self.kind}: {self.message}" if self.message else self.kind

    @property
    def sentence(self) -> str:
        """Return what happens and when."""
        where = "" if self.rank is None else f" on rank {self.rank}"
        return f"the script raises {self.text} {self.phase.value}{where}"

    @property
    def at(self) -> Location:
        """Return the innermost line of the user's."""
        return Location(self.cell, self.file, self.line or None)

    @property
    def evidence(self) -> dict[str, Any]:
        """Return the exception, the user's function and the one that raised, as a violation shows them."""
        return {"raised": self.text, "in": self.function, "by": self.by}


@dataclass(frozen=True, slots=True)
class Stall:
    """A rank that waits in a collective which another rank does not enter, or enters with other tensors."""

    rank: int
    file: str
    """The user's file, as the user named it."""
    line: int
    """The 1-based line of the user's innermost frame. In a notebook: the line in its cell."""
    meanwhile: str
    """What another rank does, as a clause: ``rank 0 has ended``."""
    cell: str = ""
    waits: bool = True
    """Whether another rank enters no collective. If False, all enter one, and these differ."""

    @property
    def at(self) -> Location:
        """Return the line of the user's that waits."""
        return Location(self.cell, self.file, self.line or None)


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """The batch that reached a training, as the script's own tokenizer, data and collator made it."""

    file: str
    line: int
    """The line of the script that started the training."""
    shape: tuple[int, ...]
    """The shape of ``input_ids``: (sequences, tokens)."""
    largest_id: int
    rows: int
    """Rows of the input embedding."""
    positions: int | None
    """The longest sequence that the positions of the model allow; None where they are not bounded."""
    labelled: int | None
    """The number of labels that count; None for a batch without labels."""
    genuine: bool
    """Whether neither the data nor the tokenizer was stood in for."""


@dataclass(frozen=True, slots=True)
class RehearsalFacts:
    """The facts of one rehearsal."""

    script: str
    trainings: int
    """How many trainings the script reached."""
    raised: Raised | None = None
    batches: tuple[BatchFacts, ...] = ()
    stalls: tuple[Stall, ...] = ()

    def raised_in(self, phase: str) -> Raised | None:
        """Return what the script raised in a part of it, ``BEFORE`` or ``AFTER``; None if it raised nothing there."""
        return self.raised if self.raised is not None and self.raised.phase is Phase[phase] else None
