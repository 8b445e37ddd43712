"""What an audit finds: violations with their evidence, fixes as data, and the report that holds them.

Nothing here imports torch. Everything is frozen, so a report can be compared, cached and serialised.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.model.memory_facts import MemoryReport
    from kbitlint.model.outline_facts import ModuleOutline

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
    """One reversible change, as data: what ``kbitlint.json`` stores and ``kbitlint.model.edits`` applies."""

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


@dataclass(frozen=True, slots=True, order=True)
class Skip:
    """A check that could not be made, and why; never the same as a pass."""

    code: str
    surface: Surface
    reason: str
    unstated: bool = False
    """Whether the rule is about runs of a kind (several ranks) that nothing says this is. Programs are told of it
    always, people with ``--verbose``."""


@dataclass(frozen=True, slots=True, order=True)
class Crash:
    """A rule that raised. It makes the exit code 2: the audit is incomplete."""

    code: str
    """Empty where no rule but the audit of a rank failed."""
    surface: Surface
    error: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.code} crashed on {self.surface.value}: {self.error}" if self.code else self.error


@dataclass(frozen=True, slots=True)
class Probe:
    """What one real training step did after a fix."""

    device: str
    loss: float | None
    gradients: int
    """Trainable parameters that received a finite gradient."""
    expected: int
    """How many should have."""
    at_embeddings: bool = False
    """Whether nothing was trainable, so that the gradient was looked at where it leaves the first layer."""
    failure: str | None = None
    """The reason why it did not run or what went wrong; None where everything is finite."""
    stepped: bool = False
    """Whether the optimizer made a step too, and left every frozen parameter as it was, bit for bit."""
    peak_bytes: int | None = None
    """The most memory that was allocated on the device during the step; None where the device does not count it."""
    as_before: bool = False
    """Whether the step fails without the fix too, so that its failure says nothing about the fix."""

    @property
    def refutes(self) -> bool:
        """Whether the step shows that the fix broke training."""
        return self.failure is not None and not self.as_before


@dataclass(frozen=True, slots=True)
class Applied:
    """A fix that was carried out: which edits, in how many passes, and what the probe saw."""

    edits: tuple[Edit, ...]
    passes: int
    held_back: int = 0
    """Fixes that were not applied because they are unsafe."""
    probe: Probe | None = None
    left_behind: str | None = None
    """The file that makes the fix last, or None."""
    lines_to_add: tuple[str, ...] = ()
    """For targets that are code: the lines that make the fix last."""
    taken_back: tuple[Edit, ...] = ()
    """Edits that were tried and taken back, because a training step raised with them and did not without."""
    left_out: tuple[Edit, ...] = ()
    """Edits that a plan names without making them, because they rewrite weights."""
    diff: str = ""
    """For files that were changed: what was changed in them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fix would do, with nothing done."""

    safe: tuple[Edit, ...]
    """The edits that ``--fix`` makes."""
    unsafe: tuple[Edit, ...]
    """Those that ``--unsafe-fixes`` adds."""
    diff: str = ""
    """For files: the safe edits as a unified diff."""
    spared: tuple[Edit, ...] = ()
    """Safe edits that are not needed where the unsafe ones are made."""
    unsafe_diff: str = ""
    """What the unsafe ones change beyond that."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A violation that somebody decided to live with; shown to programs, never counted."""

    violation: Violation
    by: str
    """``ignore-in`` or ``baseline``."""
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """A target that could not be audited."""

    target: str
    error: str
    """One line."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one audit of one target found, and everything it could not look at."""

    target: str
    """The target string; empty for a live model."""
    summary: str = ""
    """What was audited, in words: class, size, quantization, adapters, where it was built."""
    violations: tuple[Violation, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    skips: tuple[Skip, ...] = ()
    crashes: tuple[Crash, ...] = ()
    ran: tuple[tuple[str, Surface], ...] = ()
    """Every (code, surface) whose check ran to its end."""
    notes: tuple[str, ...] = ()
    """What the reader must know about how the target was built."""
    planned: Plan | None = None
    applied: Applied | None = None
    weights_read: bool = False
    trace_seconds: float | None = field(default=None, compare=False)
    """How long the training step without weights took; None where none was run."""
    outline: tuple[ModuleOutline, ...] = ()
    """The model's modules; empty where nobody asked for them or no model was looked at."""
    memory: MemoryReport | None = None
    """What a training step takes before and after the fix, where that was asked for."""
    unmeasured: str = ""
    """Why that was not measured, in one line."""

    def __str__(self) -> str:
        """The report as people read it."""
        from kbitlint.output.text import render

        return render(self)

    def at_least(self, severity: Severity) -> tuple[Violation, ...]:
        """The violations at or above a severity."""
        return tuple(violation for violation in self.violations if violation.severity >= severity)

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """The surfaces that some rule looked at."""
        return tuple(sorted({surface for _, surface in self.ran}))

    @property
    def is_empty(self) -> bool:
        """Whether nothing in the target concerns training, so that no rule had anything to look at."""
        return not (self.ran or self.violations or self.crashes) and bool(self.skips) and not self.summary

    def exit_code(self, fail_on: Severity = Severity.WARNING) -> int:
        """0 clean, 1 violations at or above ``fail_on`` are left, 2 the audit is incomplete."""
        probe = self.applied.probe if self.applied else None
        if self.crashes or not (self.ran or self.skips) or (probe is not None and probe.refutes):
            return 2
        return 1 if self.at_least(fail_on) else 0
