"""What a rule yields: violations with their evidence, and fixes as data.

Everything is frozen, so a violation can be compared, cached and serialised. What an audit makes of violations is in
``kbitlint.result``.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


@functools.total_ordering
class _Ordered(enum.Enum):
    """An enum whose members compare in the order in which they are written."""

    def __lt__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        members = list(type(self))
        return members.index(self) < members.index(other)


class Severity(_Ordered):
    """How much a violation matters; the number in a rule's code says nothing about it."""

    INFO = "info"
    """Worth knowing; nothing is lost by leaving it."""
    WARNING = "warning"
    """Unstable, or wastes a large share of memory or time."""
    ERROR = "error"
    """Training fails, or silently trains nothing or the wrong thing."""


class Consequence(enum.Enum):
    """What a training run suffers from a violation: the answer to "is this warning a problem?"."""

    FAILS = "training fails"
    TRAINS_NOTHING = "training runs but these parameters never learn"
    TRAINS_WRONG = "training changes what it should not"
    UNSTABLE = "training may become unstable"
    FRAGILE = "training works here and fails in other set-ups (DDP, hooks missing)"
    COSTS_MEMORY = "training needs more memory"
    COSTS_TIME = "training is slower"
    HARMLESS = "training is not affected today"


class Safety(_Ordered):
    """How far a fix may be trusted.

    A fix is safe when the logits on a fixed probe move by no more than rounding and no parameter that should
    train stops training.
    """

    DISPLAY = "display"
    """Shown, never applied: it has no edits."""
    UNSAFE = "unsafe"
    """Applied with ``--unsafe-fixes`` only: it may change what is trained or what the model computes."""
    SAFE = "safe"
    """Applied with ``--fix``."""


class Surface(_Ordered):
    """The kind of evidence a target offers."""

    FILES = "files"
    SOURCE = "source"
    MODEL = "model"
    TRACE = "trace"
    RANKS = "ranks"


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """Where a violation is: a module path of the user's model, or a key in a file."""

    path: str = ""
    """Dotted module or parameter path; empty for the model as a whole. For a file: the dotted key."""
    file: str = ""
    """The file, relative to the target; empty for a model."""
    line: int | None = None
    """1-based line in ``file``, where it is known."""

    def __str__(self) -> str:
        place = self.path or ("" if self.file else "(model)")
        if not self.file:
            return place
        line = f":{self.line}" if self.line else ""
        return f"{self.file}{line}" + (f" {place}" if place else "")


@dataclass(frozen=True, slots=True)
class Edit:
    """One reversible change, as data: what ``kbitlint.json`` stores and ``kbitlint.model.edits.apply`` applies."""

    kind: str
    """The name of the change: ``float32-norm``, ``freeze``, ``bind-checkpoint``, ..."""
    path: str = ""
    """The module or parameter it changes, relative to the user's model."""
    arguments: Mapping[str, JSON] = field(default_factory=dict)
    """What else the change needs to know."""
    adds_bytes: int = 0
    """Bytes of memory the change costs; negative where it saves."""

    def __hash__(self) -> int:
        return hash((self.kind, self.path, repr(sorted(self.arguments.items()))))


@dataclass(frozen=True, slots=True)
class Fix:
    """A repair: a title, how far it may be trusted, and the edits that make it."""

    title: str
    safety: Safety
    edits: tuple[Edit, ...] = ()

    def __post_init__(self) -> None:
        if (self.safety is Safety.DISPLAY) == bool(self.edits):
            raise ValueError(f"fix {self.title!r}: a display fix has no edits, every other fix has some")

    @property
    def adds_bytes(self) -> int:
        """Bytes of memory all edits together cost."""
        return sum(edit.adds_bytes for edit in self.edits)


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule broken at a location, with the evidence that the message was built from."""

    code: str
    slug: str
    severity: Severity
    consequence: Consequence
    message: str
    at: Location
    surface: Surface
    evidence: Mapping[str, Any] = field(default_factory=dict)
    fix: Fix | None = None

    @property
    def sort_key(self) -> tuple[str, int, str, str, str]:
        """Reports are ordered by file, line, path and code."""
        return (self.at.file, self.at.line or 0, self.at.path, self.code, self.message)

    @property
    def cause(self) -> tuple[str, str, str, str, str]:
        """Violations with one cause are shown as one block."""
        title = self.fix.title if self.fix else ""
        return (self.code, self.severity.value, self.message, self.consequence.value, title)
