"""Messages between the process of a rehearsal and the one that started it. Both are of this program."""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.audit.options import Options
    from kbitlint.facts.rehearsal import BatchFacts, Raised, Stall
    from kbitlint.rehearsal.command import Command
    from kbitlint.report import Report
    from kbitlint.result import Skip
    from kbitlint.step_report import FitReport, MemoryReport


@dataclass(frozen=True, slots=True)
class Measure:
    """A measurement of each training, which takes the place of its audit."""

    function: str
    """A function of ``kbitlint.api``: ``fit`` or ``memory``."""
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What the process rehearses, and how."""

    command: Command
    folder: str
    """The temporary folder, the only one that may be written."""
    working_folder: str
    """The user's working folder, an absolute path."""
    device_like: str
    options: Options
    rows: int
    """The most rows of a data set that are read."""
    network: bool = False
    """Whether connections are allowed."""
    assumed: tuple[str, ...] = ()
    """Paths of the user's that are missing, and that the script demands: they are made up before it starts."""
    text: bytes | None = None
    """The text that takes the place of the script's; None to run the script as it is."""
    measure: Measure | None = None
    patience: float = 20.0
    """The seconds that the other ranks may take after the first one has ended."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A path that the script asked for by its name, and that is not there."""

    path: str


class Kind(enum.Enum):
    """What a note names."""

    STOOD_IN = "stood in for"
    OFF = "switched off"
    OTHER = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A clause for the report."""

    text: str
    kind: Kind = Kind.OTHER


@dataclass(frozen=True, slots=True)
class Training:
    """The report of one training that the script reached."""

    report: Report
    line: int
    """The line of the script that started it; 0 if none did."""
    batch: BatchFacts | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What one training takes, or why it could not be measured."""

    line: int
    """The line of the script that started it; 0 if none did."""
    report: FitReport | MemoryReport | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """The script left with a status other than 0, and raised nothing else."""

    status: int
    line: int


@dataclass(frozen=True, slots=True)
class Done:
    """The process has nothing more to send."""

    whole: bool = True
    """Whether the script ran to its end."""


@dataclass(slots=True)
class Received:
    """Everything that the process of a rehearsal sent, in its order."""

    notes: list[Note] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    raised: Raised | None = None
    exit: Exit | None = None
    done: bool = False
    whole: bool = False
    """Whether the script ran to its end."""
    unfinished: str = ""
    """Why the process ended before the script did; empty if it did not."""
    missing: list[str] = field(default_factory=list)
    """Paths that the script asked for, and that are not there."""
    output: str = ""
    """The end of what the script printed."""
    stalls: list[Stall] = field(default_factory=list)
    """Ranks that waited for another one in vain."""
    ranks: dict[int, Received] = field(default_factory=dict)
    """What each rank other than 0 sent."""
