"""Results of an audit, as data: violations, applied fixes, and checks that could not run.

Every class is frozen, so a result can be compared, cached and sent to another process. Renderers read results; this
module imports none of them. ``kbitlint.report`` adds the text rendering.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.violation import Edit, Severity, Surface, Violation

if TYPE_CHECKING:
    from kbitlint.memory_result import MemoryResult

#: the summary of a function that was not to be run
NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, order=True)
class Skip:
    """A check that could not run, with the reason. A skip never counts as a pass."""

    code: str
    surface: Surface
    reason: str
    unstated: bool = False
    """Whether the check was skipped because the context leaves the kind of run open, for example the number of ranks.

    JSON reports always list such a skip, text reports only with ``--verbose``.
    """
    unreached: bool = False
    """Whether a part of the target could not be reached, so that the audit is incomplete."""


@dataclass(frozen=True, slots=True, order=True)
class Crash:
    """A rule that raised an exception. The audit is then incomplete and its exit code is 2."""

    code: str
    """The code of the rule; empty if the audit of a rank failed instead of a rule."""
    surface: Surface
    error: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.code} crashed on {self.surface.value}: {self.error}" if self.code else self.error


@dataclass(frozen=True, slots=True)
class Probe:
    """The outcome of one real training step after a fix."""

    device: str
    loss: float | None
    """The loss of the step; None if the step did not compute one."""
    gradients: int
    """Number of trainable parameters that received a finite gradient."""
    expected: int
    """Number of parameters that should have received one."""
    at_embeddings: bool = False
    """Whether nothing was trainable, so that the probe read the gradient at the output of the embeddings instead."""
    failure: str | None = None
    """Why the step did not run or went wrong; None if all values are finite."""
    stepped: bool = False
    """Whether the optimizer made a step too and left every frozen parameter bit-identical."""
    peak_bytes: int | None = None
    """Peak of the memory allocated on the device during the step, in bytes. None if the device does not count it."""
    as_before: bool = False
    """Whether the step fails without the fix too. Its failure then proves nothing about the fix."""

    @property
    def refutes(self) -> bool:
        """Return whether the step shows that the fix broke training."""
        return self.failure is not None and not self.as_before


@dataclass(frozen=True, slots=True)
class Applied:
    """The edits that were applied, the number of passes, and the outcome of the probe."""

    edits: tuple[Edit, ...]
    passes: int
    """Number of rounds of edits until an audit found no further fix to apply."""
    held_back: int = 0
    """Number of fixes that were not applied because they are unsafe."""
    probe: Probe | None = None
    left_behind: str | None = None
    """The file that makes the fix permanent; None if no file was written."""
    lines_to_add: tuple[str, ...] = ()
    """For targets that are code: the lines that make the fix permanent."""
    taken_back: tuple[Edit, ...] = ()
    """Edits that were undone, because a training step raised with them and ran without them."""
    left_out: tuple[Edit, ...] = ()
    """Edits that a plan lists without applying them, because they rewrite weights."""
    diff: str = ""
    """For changed files: the changes as a unified diff."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The edits of a fix, none of them applied."""

    safe: tuple[Edit, ...]
    """The edits that ``--fix`` applies."""
    unsafe: tuple[Edit, ...]
    """The further edits of ``--unsafe-fixes``."""
    diff: str = ""
    """For files: the safe edits as a unified diff."""
    spared: tuple[Edit, ...] = ()
    """Safe edits that are unnecessary if the unsafe edits are applied."""
    unsafe_diff: str = ""
    """For files: the further changes of the unsafe edits, as a unified diff."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A violation that the project accepts. JSON reports list it; it does not count."""

    violation: Violation
    by: str
    """``ignore-in`` or ``baseline``."""
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """A target that could not be audited."""

    target: str
    error: str
    """The reason in one line."""


@dataclass(frozen=True, slots=True)
class ModuleOutline:
    """One module with parameters of its own or of its descendants. Its counts leave out the descendants."""

    path: str
    """The path as in reports; empty for the model itself."""
    class_name: str
    shape: tuple[int, ...] = ()
    """The shape of its weight; for a packed weight, the shape before packing."""
    numel: int = 0
    """Number of elements of its parameters, before packing."""
    trainable: int = 0
    """Number of elements of its parameters that require grad."""
    stored: tuple[tuple[str, int], ...] = ()
    """(storage, bytes) of its parameters. The storage is a dtype, or for a packed weight the method's name: nf4, int8."""
    checkpoints: str = ""
    """Its checkpointing: ``no``, ``reentrant``, ``without reentry`` or ``unknown``. Empty if it does not support any."""
    adapter: bool = False
    """Whether an adapter added the module."""
    norm: bool = False


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The outcome of one audit of one target, including the checks that could not run."""

    target: str
    """The target string; empty for a live model."""
    summary: str = ""
    """The audited model in words: class, size, quantization, adapters. For a folder: how many files concern training."""
    violations: tuple[Violation, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    skips: tuple[Skip, ...] = ()
    crashes: tuple[Crash, ...] = ()
    ran: tuple[tuple[str, Surface], ...] = ()
    """(code, surface) of every check that ran to its end."""
    notes: tuple[str, ...] = ()
    """Notes on how the target was built that change the meaning of the report."""
    planned: Plan | None = None
    """The edits of a fix; None if the caller did not ask for a plan."""
    applied: Applied | None = None
    """The applied fix; None if the run applied none."""
    weights_read: bool = False
    """Whether the audited model has weights. False on the meta device and if no model was audited."""
    trace_seconds: float | None = field(default=None, compare=False)
    """Duration of the training step without weights; None if no such step ran."""
    outline: tuple[ModuleOutline, ...] = ()
    """The model's modules. Empty if the caller did not ask for them or no model was audited."""
    memory: MemoryResult | None = None
    """The memory of a training step before and after the fix; None if the caller did not ask for it."""
    unmeasured: str = ""
    """Why the memory was not measured, in one line; empty if it was."""

    def at_least(self, severity: Severity) -> tuple[Violation, ...]:
        """Return the violations at or above a severity."""
        return tuple(violation for violation in self.violations if violation.severity >= severity)

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """Return the surfaces on which at least one check ran."""
        return tuple(sorted({surface for _, surface in self.ran}))

    @property
    def is_empty(self) -> bool:
        """Return whether no rule could check anything, because nothing in the target concerns training."""
        return not (self.ran or self.violations or self.crashes) and bool(self.skips) and not self.summary

    @property
    def left_out(self) -> bool:
        """Return whether the target is a function that was not to be run."""
        return self.summary == NOT_RUN and not self.ran

    def exit_code(self, fail_on: Severity = Severity.WARNING) -> int:
        """Return the exit code of the audit.

        0 means clean. 1 means that violations at or above ``fail_on`` remain. 2 means that the audit is incomplete
        or that the probe refutes the fix.
        """
        probe = self.applied.probe if self.applied else None
        if self.crashes or any(skip.unreached for skip in self.skips) or not (self.ran or self.skips):
            return 2
        if probe is not None and probe.refutes:
            return 2
        return 1 if self.at_least(fail_on) else 0
