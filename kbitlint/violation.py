"""Results of rules: violations with their evidence, and fixes as data.

Every class is frozen, so a violation can be compared, cached and serialized. The result of a whole audit is in
``kbitlint.result``. Of kbitlint, this module imports the decorator of its classes alone.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


@functools.total_ordering
class _Ordered(enum.Enum):
    """An enum whose members compare in their order of definition."""

    def __lt__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        members = list(type(self))
        return members.index(self) < members.index(other)


class Severity(_Ordered):
    """How much a violation matters. It does not follow from the number in a rule's code."""

    INFO = "info"
    """Useful to know; ignoring it costs nothing."""
    WARNING = "warning"
    """Training is unstable, or it wastes a large share of memory or time."""
    ERROR = "error"
    """Training fails, trains nothing without an error, or trains the wrong parameters."""


class Consequence(enum.Enum):
    """The effect of a violation on a training run."""

    FAILS = "training fails"
    TRAINS_NOTHING = "training runs but these parameters never learn"
    TRAINS_WRONG = "training changes what it should not"
    UNSTABLE = "training may become unstable"
    OUTDATED = "training fails with the newest versions"
    FRAGILE = "training works here and fails in other set-ups (DDP, hooks missing)"
    COSTS_MEMORY = "training needs more memory"
    COSTS_TIME = "training is slower"
    HARMLESS = "training is not affected today"


class Safety(_Ordered):
    """The condition under which a fix is applied.

    A fix is safe if two conditions hold. The logits on a fixed probe change by rounding at most, and every parameter
    that should train still trains.
    """

    DISPLAY = "display"
    """Printed, never applied: the fix has no edits."""
    UNSAFE = "unsafe"
    """Applied with ``--unsafe-fixes`` only. The fix may change which parameters train or what the model computes."""
    SAFE = "safe"
    """Applied with ``--fix``."""


class Surface(_Ordered):
    """The kind of evidence that a target offers."""

    FILES = "files"
    SOURCE = "source"
    MODEL = "model"
    TRACE = "trace"
    RANKS = "ranks"
    REHEARSAL = "rehearsal"


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """The position of a violation: a module path of the user's model, or a key or line of a file."""

    path: str = ""
    """Dotted module or parameter path; empty for the whole model. For a file: the dotted key."""
    file: str = ""
    """The file, relative to the target; empty for a model."""
    line: int | None = None
    """1-based line in ``file``, for a notebook in its cell. None if the violation has no single line."""
    column: int | None = field(default=None, compare=False)
    """1-based column of the start, in characters; None if only the line is known."""
    end_line: int | None = field(default=None, compare=False)
    """1-based line of the end."""
    end_column: int | None = field(default=None, compare=False)
    """1-based column behind the last character."""
    code: str = field(default="", compare=False)
    """The text of the line, without its indentation; empty if the violation has no line."""

    def __str__(self) -> str:
        place = self.path or ("" if self.file else "(model)")
        if not self.file:
            return place
        line = f":{self.line}" if self.line else ""
        return f"{self.file}{line}" + (f" {place}" if place else "")


@dataclass(frozen=True, slots=True)
class Edit:
    """One reversible change, as data.

    ``kbitlint.json`` stores it and ``kbitlint.model.edits.apply`` applies it.
    """

    kind: str
    """The kind of change: ``float32-norm``, ``freeze``, ``bind-checkpoint``, ..."""
    path: str = ""
    """The module or parameter that the edit changes, relative to the user's model. For an edit of a file: the file."""
    arguments: Mapping[str, JSON] = field(default_factory=dict)
    """Further parameters of the change, by name."""
    adds_bytes: int = 0
    """Bytes of memory that the change adds; negative if it saves memory."""

    def __hash__(self) -> int:
        return hash((self.kind, self.path, repr(sorted(self.arguments.items()))))


@dataclass(frozen=True, slots=True)
class Fix:
    """A repair: a title, its safety, and the edits that carry it out.

    Raises:
        ValueError: If a display fix has edits, or another fix has none.
    """

    title: str
    safety: Safety
    edits: tuple[Edit, ...] = ()

    def __post_init__(self) -> None:
        if (self.safety is Safety.DISPLAY) == bool(self.edits):
            raise ValueError(f"fix {self.title!r}: a display fix has no edits, every other fix has some")

    @property
    def adds_bytes(self) -> int:
        """Return the bytes of memory that all edits together add."""
        return sum(edit.adds_bytes for edit in self.edits)


@dataclass(frozen=True, slots=True)
class Violation:
    """A violation of a rule at one location, with the evidence behind its message."""

    code: str
    slug: str
    severity: Severity
    consequence: Consequence
    message: str
    at: Location
    surface: Surface
    evidence: Mapping[str, Any] = field(default_factory=dict)
    fix: Fix | None = None

    def __repr__(self) -> str:
        """Return the rule, the severity, the place and the message on one line."""
        return f"<Violation {self.code} {self.severity.value} at {self.at}: {self.message}>"

    def _repr_html_(self) -> str:
        """Return a card for a notebook, in colours that suit its light and dark theme."""
        from html import escape  # only a notebook needs it

        fix = f"<br>fix: {escape(self.fix.title)} <small>[{self.fix.safety.value}]</small>" if self.fix else ""
        color = {Severity.ERROR: "#d1242f", Severity.WARNING: "#9a6700", Severity.INFO: "#0969da"}[self.severity]
        return (
            f'<div style="border-left: 4px solid {color}; padding: .3em .8em; font-family: sans-serif">'
            f'<b style="color: {color}">{self.severity.value}</b> <b>{escape(self.message)}</b>'
            f" <code>{escape(self.code)} {escape(self.slug)}</code><br><code>{escape(str(self.at))}</code>"
            f"<br>means: {escape(self.consequence.value)}{fix}</div>"
        )

    @property
    def sort_key(self) -> tuple[str, int, str, str, str]:
        """Return the key that orders violations by file, line, path, code and message."""
        return (self.at.file, self.at.line or 0, self.at.path, self.code, self.message)

    @property
    def cause(self) -> tuple[str, str, str, str, str]:
        """Return the key that groups violations. Reports print those with an equal key as one block."""
        title = self.fix.title if self.fix else ""
        return (self.code, self.severity.value, self.message, self.consequence.value, title)
