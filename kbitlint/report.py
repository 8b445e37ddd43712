"""Results with a text rendering: the return values of the Python API.

``kbitlint.result`` has the data; this module may import the renderers of ``kbitlint.output``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.fit_result import FitResult
from kbitlint.output import fit, memory, text
from kbitlint.result import AuditResult, MemoryResult

if TYPE_CHECKING:
    from kbitlint.engine import Outcome


class Report(AuditResult):
    """The outcome of one audit of one target, including the checks that could not run."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report in the text format."""
        return text.render(self)


class MemoryReport(MemoryResult):
    """The memory of training for several states of one model."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report in the format of ``kbitlint memory``."""
        return memory.render_text(self)


class FitReport(FitResult):
    """Whether a run fits its cards."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report in the format of ``kbitlint fit``."""
        return fit.render_text(self)


def report_of(name: str, facts: Any, outcome: Outcome, trace: Any = None, **further: Any) -> Report:
    """Return the report of one audit.

    Args:
        name: The target.
        facts: The facts of the model; None if no model was audited.
        outcome: The outcome of the rules.
        trace: The facts of a step without weights; None if none ran.
        **further: Further fields of the report.
    """
    return Report(
        target=name,
        summary=facts.summary() if facts is not None else "",
        violations=outcome.violations,
        skips=(*outcome.skips, *further.pop("skips", ())),
        crashes=outcome.crashes,
        ran=outcome.ran,
        trace_seconds=trace.seconds if trace is not None else None,
        weights_read=facts is not None and not facts.on_meta,
        **further,
    )
