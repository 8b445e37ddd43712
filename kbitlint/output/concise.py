"""The concise format: one line a finding, as editors and ``grep`` read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.output.physical_location import found
from kbitlint.output.wording import Pen, plural, printable
from kbitlint.violation import Safety, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kbitlint.output.physical_location import Found
    from kbitlint.result import AuditResult

_COLORS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.INFO: "36"}


def render(reports: Sequence[AuditResult], *, color: bool = False, quiet: bool = False) -> str:
    """Return ``file:line:column: CODE [*] message`` for each cause at each place, what was not read, and their number."""
    groups = [(report, group) for report in reports for group in found(report) if group.reason is None]
    lines = [_line(report, group, color=color) for report, group in groups]
    lines += [line for report in reports for line in _crashes(report)]
    if not quiet:
        lines += [line for report in reports for line in _unread(report)]
        fixable = sum(1 for _, group in groups if group.first.fix and group.first.fix.safety is Safety.SAFE)
        tail = f", {fixable} fixable with --fix" if fixable else ""
        ran = "clean" if any(report.ran for report in reports) else "nothing to check"
        lines.append(f"{plural(len(groups), 'finding')}{tail}" if groups else ran)
    return "\n".join(lines)


def _line(report: AuditResult, group: Found, *, color: bool) -> str:
    violation, place = group.first, group.place
    where = report.target or "(model)"
    if violation.at.file:
        column = f":{place.column}" if place.column else ""
        where = f"{place.file}:{place.line}{column}" if violation.at.line else place.file
    mark = " [*]" if violation.fix and violation.fix.safety is Safety.SAFE else ""
    pen = Pen(_COLORS[violation.severity] if color else "")
    return f"{printable(where)}: {pen(violation.code)} {violation.severity.value}{mark} {printable(group.message)}"


def _unread(report: AuditResult) -> Iterator[str]:
    """Yield what was not read, or not to its end; a skip of single rules is none of it."""
    return (printable(f"{report.target or '(model)'}: skipped: {skip.reason}") for skip in report.skips if not skip.code)


def _crashes(report: AuditResult) -> Iterator[str]:
    return (printable(f"{report.target or '(model)'}: {crash}") for crash in report.crashes)
