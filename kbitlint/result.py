"""What an audit gives, as data: what was found, what was fixed, and what could not be checked.

Everything is frozen, so a result can be compared, cached and sent to another process. Renderers read results, and no
result knows a renderer: ``kbitlint.report`` puts both together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kbitlint.violation import Edit, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

#: kinds of resident bytes, in the order in which they are shown
KINDS = ("quantized weights", "quantization state", "norms", "embeddings and head", "other weights", "adapters", "buffers")
#: how layers may checkpoint, in the order in which they are shown; the last one's n is the caller's
OFF, ON = "no checkpointing", "checkpointed"


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
class ModuleOutline:
    """One module that holds parameters, itself or below it. What it counts is its own, without that of its children."""

    path: str
    """As in reports; empty for the model itself."""
    class_name: str
    shape: tuple[int, ...] = ()
    """Of its weight; before packing where it is packed."""
    numel: int = 0
    """Elements of its parameters, before packing."""
    trainable: int = 0
    """Elements of those that require grad."""
    stored: tuple[tuple[str, int], ...] = ()
    """(how its parameters are stored, bytes): a dtype, or for a packed weight the method's own name: nf4, int8."""
    checkpoints: str = ""
    """How it checkpoints its activations: ``no``, ``reentrant``, ``without reentry``, ``unknown``; empty where it cannot."""
    adapter: bool = False
    """Whether an adapter added it."""
    norm: bool = False


@dataclass(frozen=True, slots=True)
class StepMemory:
    """One training step in one mode of checkpointing."""

    activations: int
    """Bytes kept for the backward pass by the layers and what feeds them."""
    logits: int
    """Bytes kept for the backward pass by the head and the loss."""
    peak: int
    """The most that is held at any moment of a step after the first, weights and optimizer state included."""
    peak_at: str
    """The module that runs then, with the pass: ``lm_head, backward``."""


@dataclass(frozen=True, slots=True)
class StateMemory:
    """One state of the model: as it is, or prepared in one way or another."""

    name: str
    resident: Mapping[str, int]
    """Bytes of each kind of ``KINDS``."""
    gradients: int
    optimizer: int
    steps: Mapping[str, StepMemory]
    """By mode of checkpointing; a mode that the class does not support is absent."""
    failure: str | None = None
    """Why the step could not be run; None where it ran."""


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """What training takes, side by side for several states of one model."""

    target: str
    summary: str
    batch: tuple[int, int]
    """(sequences, tokens a sequence)."""
    optimizer: str
    autocast: str | None
    states: tuple[StateMemory, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditResult:
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
    memory: MemoryResult | None = None
    """What a training step takes before and after the fix, where that was asked for."""
    unmeasured: str = ""
    """Why that was not measured, in one line."""

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
