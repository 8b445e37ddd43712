"""The text format: violations grouped by cause, with folded layer numbers, 80 columns wide by default."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kbitlint.module_paths import fold_all
from kbitlint.output.wording import NAMED, Pen, causes, edit_lines, header, plural, printable, probed, skipped, wrapped
from kbitlint.sizes import size
from kbitlint.violation import Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kbitlint.result import Applied, AuditResult, Plan

_COLORS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.INFO: "36"}
_MAX_PLACES = 12
#: Kinds of edits of texts, which the report prints as a diff.
_SHOWN_AS_DIFF = ("replace-span", "set-json-key", "remove-json-key", "rename-json-key")


def render(report: AuditResult, *, color: bool = False, width: int = 80, verbose: bool = False, timed: bool = False) -> str:
    """Return the report as text.

    Args:
        report: The report.
        color: Whether to use ANSI colours.
        width: The number of columns.
        verbose: Whether to name every skipped rule.
        timed: Whether to print the duration of the trace; without it, equal reports give equal texts.
    """
    paint = _Paint(color)
    lines = [*header(report.target, [report.summary, *report.notes], width), ""]
    for group in causes(report.violations):
        lines += [*_block(group, paint, width), ""]
    if report.planned is not None:
        lines += [*_plan(report.planned, width), ""]
    if report.applied is not None:
        lines += [*_applied(report.applied, paint, width), ""]
    for crash in report.crashes:
        lines += wrapped(str(crash), width, "  ", paint.code("31"))
    lines += _footer(report, paint, width, verbose=verbose, timed=timed)
    return "\n".join(lines)


def render_all(
    reports: Sequence[AuditResult],
    *,
    color: bool = False,
    width: int = 80,
    verbose: bool = False,
    quiet: bool = False,
    timed: bool = False,
) -> str:
    """Return the reports of one run; if there are several, reports of targets without training are left out.

    Args:
        reports: The reports, one for each target.
        color: Whether to use ANSI colours.
        width: The number of columns.
        verbose: Whether to name every skipped rule.
        quiet: Whether to leave out all but violations and crashes.
        timed: Whether to print the duration of the trace.
    """
    if quiet:
        return "\n\n".join(filter(None, (_findings(report, _Paint(color), width) for report in reports)))
    shown = [report for report in reports if len(reports) == 1 or not report.is_empty]
    if reports and not shown:
        return f"nothing in {len(reports)} targets to check"
    return "\n\n".join(render(report, color=color, width=width, verbose=verbose, timed=timed) for report in shown)


def _findings(report: AuditResult, paint: _Paint, width: int) -> str:
    """Return the violations and crashes of a report; an empty text if there are none."""
    blocks = ["\n".join(_block(group, paint, width)) for group in causes(report.violations)]
    blocks += ["\n".join(wrapped(str(crash), width, "  ", paint.code("31"))) for crash in report.crashes]
    return "\n\n".join([printable(report.target), *blocks]) if blocks else ""


class _Paint:
    def __init__(self, color: bool) -> None:  # noqa: FBT001  # the only argument
        self.color = color

    def code(self, ansi: str) -> Pen:
        return Pen(ansi if self.color else "")


def _block(group: list[Violation], paint: _Paint, width: int) -> list[str]:
    first = group[0]
    title = f"{first.code} {first.slug}"
    severity = first.severity.value
    gap = " " * max(1, width - len(title) - len(severity))
    lines = [f"{paint.code('1')(title)}{gap}{paint.code(_COLORS[first.severity])(severity)}"]
    lines += wrapped(first.message, width, "  ")
    places = fold_all(str(violation.at) for violation in group)
    if places != [("(model)", 1)]:
        shown = places[:_MAX_PLACES]
        lined = all(violation.at.line for violation in group)  # a line of a file is one place: no count is needed
        for place, count in shown:
            text = f"    {printable(place)}"
            number = str(count)
            lines.append(text if lined and count == 1 else text + " " * max(1, width - len(text) - len(number)) + number)
        if len(places) > len(shown):
            rest = sum(count for _, count in places[len(shown) :])
            lines.append(f"    and {rest} more places")
    lines += wrapped(f"means: {first.consequence.value}", width, "  ", paint.code("2"))
    if first.fix is not None:
        edits = {edit for violation in group if violation.fix for edit in violation.fix.edits}
        cost = sum(edit.adds_bytes for edit in edits)
        marks = [first.fix.safety.value if first.fix.safety is not Safety.DISPLAY else "by hand"]
        if cost:
            marks.append(size(cost, sign=True))
        lines += wrapped(f"fix: {first.fix.title}  [{', '.join(marks)}]", width, "  ", paint.code("32"))
    return lines


def _plan(plan: Plan, width: int) -> Iterator[str]:
    if not plan.safe and not plan.unsafe:
        yield "nothing to fix"
        return
    yield from _diffs(plan)
    safe, unsafe = ([edit for edit in edits if edit.kind not in _SHOWN_AS_DIFF] for edits in (plan.safe, plan.unsafe))
    if safe:
        yield f"--fix would make {plural(len(safe), 'edit')}:"
        yield from edit_lines(safe, width, "+")
    if unsafe:
        yield f"--unsafe-fixes would add {plural(len(unsafe), 'edit')}:"
        yield from edit_lines(unsafe, width, "!")
    total = sum(edit.adds_bytes for edit in (*plan.safe, *plan.unsafe))
    if total:
        yield f"memory: {size(total, sign=True)}"


def _diffs(plan: Plan) -> Iterator[str]:
    if plan.diff:
        yield "--fix would change:"
        yield from _shown(plan.diff)
    if plan.unsafe_diff:
        yield "--unsafe-fixes would change:" if not plan.diff else "with --unsafe-fixes it would be:"
        yield from _shown(plan.unsafe_diff)


def _shown(diff: str) -> Iterator[str]:
    return (printable(line.rstrip("\r")) for line in diff.split("\n"))


def _applied(applied: Applied, paint: _Paint, width: int) -> Iterator[str]:
    if not applied.edits:
        yield "nothing to fix"
    else:
        yield f"fixed with {plural(len(applied.edits), 'edit')} in {plural(applied.passes, 'pass', 'passes')}:"
        yield from _shown(applied.diff)
        yield from edit_lines((edit for edit in applied.edits if edit.kind not in _SHOWN_AS_DIFF), width, "+")
    if applied.held_back:
        yield f"{plural(applied.held_back, 'unsafe fix', 'unsafe fixes')} held back: --unsafe-fixes applies them"
    if applied.taken_back:
        yield f"{plural(len(applied.taken_back), 'edit')} taken back, with which the training step raises"
    if applied.probe is not None:
        yield from wrapped(
            probed(applied.probe),
            width,
            "",
            paint.code("31" if applied.probe.refutes else "33" if applied.probe.failure else "32"),
        )
    if applied.left_behind:
        yield from wrapped(f"written: {applied.left_behind} (kbitlint.load_prepared applies it)", width, "")
    if applied.lines_to_add:
        yield "to make it last, add to the factory:"
        yield from (f"    {line}" for line in applied.lines_to_add)


def _fixable(groups: Sequence[Sequence[Violation]]) -> str:
    """Return the number of causes that each option fixes, as the end of a sentence; empty if there are none."""
    safe, unsafe = (
        sum(1 for group in groups if group[0].fix and group[0].fix.safety is safety) for safety in (Safety.SAFE, Safety.UNSAFE)
    )
    of_all = f"of {plural(len(groups), 'cause')} fixable with"
    if safe and unsafe:
        return f"; {safe} {of_all} --fix, {unsafe} more with --unsafe-fixes"
    return f"; {safe or unsafe} {of_all} {'--fix' if safe else '--fix --unsafe-fixes'}" if safe or unsafe else ""


def _footer(report: AuditResult, paint: _Paint, width: int, *, verbose: bool, timed: bool) -> Iterator[str]:
    counts = Counter(violation.severity for violation in report.violations)
    probe = report.applied.probe if report.applied else None
    if probe is not None and probe.refutes:
        yield paint.code("31;1")("not ready: the fix breaks training, and nothing was kept")
    elif counts:
        found = ", ".join(plural(counts[severity], severity.value) for severity in reversed(Severity) if counts[severity])
        groups = causes(report.violations)
        tail = _fixable(groups) if report.applied is None else ""
        yield from wrapped(f"{found}{tail}", width, "", paint.code("1"))
    elif report.ran:
        yield paint.code("32;1")("clean")
    else:
        yield "nothing to check" if report.skips else "nothing was checked"
    if report.suppressed:
        by = Counter(entry.by for entry in report.suppressed)
        yield "suppressed: " + ", ".join(f"{count} by {name}" for name, count in sorted(by.items()))
    rules = len({code for code, _ in report.ran})
    names = [surface.value for surface in report.surfaces]
    surfaces = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    ran = f"{plural(rules, 'rule')} ran on {surfaces}" if rules else "no rule ran"
    if timed and report.trace_seconds is not None:
        ran += f" (traced in {report.trace_seconds:.1f} s)"
    if not report.weights_read and report.surfaces != (Surface.SOURCE,):
        ran += ", no weights read"
    yield from wrapped(ran, width, "")
    for reason, codes in skipped(report, verbose=verbose):
        named = ", ".join(codes) if len(codes) <= NAMED or verbose else f"{len(codes)} rules ({codes[0]} and others)"
        yield from wrapped(f"skipped {named}: {reason}" if named else f"skipped: {reason}", width, "  ", paint.code("2"))
