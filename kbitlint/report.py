"""Results that print themselves: what the audit and the measurement of memory return to users.

The data is in ``kbitlint.result``, which renderers read; here the text renderers are added to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.output import memory, text
from kbitlint.result import AuditResult, MemoryResult

if TYPE_CHECKING:
    from kbitlint.engine import Outcome


class Report(AuditResult):
    """Everything that one audit of one target found, and everything that it could not check."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report as the text format shows it."""
        return text.render(self)


class MemoryReport(MemoryResult):
    """What training takes, side by side for several states of one model."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report as ``kbitlint memory`` shows it."""
        return memory.render_text(self)


def report_of(name: str, facts: Any, outcome: Outcome, trace: Any = None, **further: Any) -> Report:
    """The report of one audit.

    Args:
        name: The target.
        facts: What the walk saw; None where no model was looked at.
        outcome: What the rules gave.
        trace: What a step without weights showed; None where none was run.
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
