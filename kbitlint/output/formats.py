"""The formats by name: what ``--format`` takes and what renders each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.result import AuditResult, Failure, MemoryResult
    from kbitlint.violation import Severity

NAMES = ("text", "json", "sarif", "github", "junit", "html")
#: those of ``kbitlint memory``
MEMORY = ("text", "json", "html")


def render(
    name: str,
    reports: Sequence[AuditResult],
    failures: Sequence[Failure] = (),
    unused: Sequence[str] = (),
    *,
    fail_on: Severity,
    **looks: Any,
) -> str:
    """All reports of one run in a format.

    Args:
        name: One of ``NAMES``.
        reports: What was audited.
        failures: Targets that could not be audited; text leaves them to the error stream.
        unused: Suppressions that match nothing any more.
        fail_on: The least severity that fails the run.
        **looks: ``color``, ``width``, ``verbose`` and ``timed`` of text.
    """
    if name == "json":
        from kbitlint.output import json

        return json.render(reports, failures, unused)
    if name == "sarif":
        from kbitlint.output import sarif
        from kbitlint.registry import all_rules

        return sarif.render(reports, failures, unused, rules=all_rules())
    if name == "github":
        from kbitlint.output import github

        return github.render(reports, failures, unused)
    if name == "junit":
        from kbitlint.output import junit
        from kbitlint.registry import all_rules

        return junit.render(reports, failures, rules=all_rules(), fail_on=fail_on)
    if name == "html":
        from kbitlint.output.html import page
        from kbitlint.registry import all_rules

        return page.render(reports, failures, unused, rules=all_rules(), fail_on=fail_on)
    from kbitlint.output import text

    shown = [report for report in reports if len(reports) == 1 or not report.is_empty]
    if reports and not shown:
        return f"nothing in {len(reports)} targets to check"
    return "\n\n".join(text.render(report, **looks) for report in shown)


def render_memory(name: str, report: MemoryResult, *, color: bool = False, width: int = 80) -> str:
    """What training takes in memory, in one of the formats of ``MEMORY``."""
    if name == "html":
        from kbitlint.output.html import page

        return page.render_memory(report)
    from kbitlint.output import memory

    return memory.render_json(report) if name == "json" else memory.render_text(report, color=color, width=width)
