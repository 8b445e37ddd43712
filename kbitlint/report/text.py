"""The report a person reads: violations grouped by cause, layer numbers folded, 80 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from kbitlint.paths import fold_all
from kbitlint.violation import Applied, Edit, Plan, Probe, Report, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_COLORS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.INFO: "36"}
_MAX_PLACES = 12
#: edits of texts: the diff shows them
_SHOWN_AS_DIFF = ("replace-span", "set-json-key", "remove-json-key", "rename-json-key")


def render(report: Report, *, color: bool = False, width: int = 80, verbose: bool = False, timed: bool = False) -> str:
    """The report as text.

    Args:
        report: What to show.
        color: Whether to use ANSI colours.
        width: Columns to fill.
        verbose: Whether to name every rule that was skipped.
        timed: Whether to say how long the trace took; without it the same report gives the same text.
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


class _Paint:
    def __init__(self, color: bool) -> None:  # noqa: FBT001  # the one thing it is told
        self.color = color

    def code(self, ansi: str) -> _Pen:
        return _Pen(ansi if self.color else "")


class _Pen:
    def __init__(self, ansi: str) -> None:
        self.ansi = ansi

    def __call__(self, text: str) -> str:
        return f"\x1b[{self.ansi}m{text}\x1b[0m" if self.ansi else text


def printable(text: str) -> str:
    """The text with control characters escaped: names in a model must not steer the terminal."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)


def wrapped(text: str, width: int, indent: str, pen: _Pen | None = None) -> list[str]:
    """The text in lines of a width, without control characters."""
    lines = textwrap.wrap(
        printable(text), width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [pen(line) for line in lines] if pen else lines


def header(target: str, about: Iterable[str], width: int) -> list[str]:
    """The target and what is said about it, in as few lines as they need."""
    target = printable(target)
    parts = [part for part in about if part]
    if not parts:
        return [target]
    if not target:
        return wrapped(", ".join(parts), width, "")
    lead = f"{target}  "
    if len(lead) > width // 3:
        return [target, *wrapped(", ".join(parts), width, "  ")]
    lines = wrapped(", ".join(parts), width - len(lead), "")
    return [lead + lines[0], *(" " * len(lead) + line for line in lines[1:])]


def causes(violations: Iterable[Violation]) -> list[list[Violation]]:
    """Violations with one cause together: errors first, then by code."""
    groups: dict[tuple[str, ...], list[Violation]] = {}
    for violation in violations:
        groups.setdefault(violation.cause, []).append(violation)
    return sorted(groups.values(), key=lambda group: (_rank(group[0].severity), group[0].code, group[0].message))


def _rank(severity: Severity) -> int:
    return -list(Severity).index(severity)


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
        lined = all(violation.at.line for violation in group)  # a line of a file is one place
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


def size(count: int, *, sign: bool = False) -> str:
    """Bytes for people: ``1.1 MB``."""
    value, unit = float(abs(count)), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    number = f"{value:.0f}" if unit == "B" else f"{value:.1f}"
    return f"{'-' if count < 0 else '+' if sign else ''}{number} {unit}"


def edit_lines(edits: Iterable[Edit], width: int, mark: str) -> Iterator[str]:
    """Edits, folded: those that differ in layer numbers only are one line with their number."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for edit in edits:
        arguments = ", ".join(f"{name}={value}" for name, value in sorted(edit.arguments.items()))
        kinds.setdefault((edit.kind, arguments), []).append(edit.path)
    for (kind, arguments), paths in kinds.items():
        yield printable(f"  {mark} {kind}" + (f" ({arguments})" if arguments else ""))
        for place, count in fold_all(paths):
            text = f"      {printable(place or '(model)')}"
            yield text + " " * max(1, width - len(text) - len(str(count))) + str(count)


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


def probed(probe: Probe) -> str:
    """What the training step after a fix did, in one sentence."""
    if probe.as_before:
        return f"the training step on {probe.device} proves nothing: it fails without the fix too ({probe.failure})"
    if probe.failure:
        return f"training step on {probe.device} failed: {probe.failure}"
    arrived = f"finite gradients for {probe.gradients} of {probe.expected} trainable parameters"
    arrived += ", AdamW changes no frozen one" * probe.stepped
    if probe.at_embeddings:
        arrived = "a finite gradient reaches the input embeddings through every layer"
    arrived += f", at most {size(probe.peak_bytes)} allocated" if probe.peak_bytes is not None else ""
    return f"training step on {probe.device}: loss {probe.loss:.4f}, {arrived}"


def _fixable(groups: Sequence[Sequence[Violation]]) -> str:
    """How many causes which option mends."""
    safe, unsafe = (
        sum(1 for group in groups if group[0].fix and group[0].fix.safety is safety) for safety in (Safety.SAFE, Safety.UNSAFE)
    )
    of_all = f"of {plural(len(groups), 'cause')} fixable with"
    if safe and unsafe:
        return f"; {safe} {of_all} --fix, {unsafe} more with --unsafe-fixes"
    return f"; {safe or unsafe} {of_all} {'--fix' if safe else '--unsafe-fixes'}" if safe or unsafe else ""


def _footer(report: Report, paint: _Paint, width: int, *, verbose: bool, timed: bool) -> Iterator[str]:
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


#: more codes than these are counted; JSON and --verbose list them all
NAMED = 4


def skipped(report: Report, *, verbose: bool = False) -> list[tuple[str, list[str]]]:
    """(reason, codes) of what was skipped, each reason once; the surface is named where the rule ran on another one.

    Args:
        report: The report.
        verbose: Whether also for rules about runs of a kind that nothing says this is.
    """
    ran = {code for code, _ in report.ran}
    reasons: dict[str, list[str]] = {}
    for skip in report.skips:
        if verbose or not skip.unstated:
            name = f"{skip.code} ({skip.surface.value})" if skip.code in ran else skip.code
            reasons.setdefault(skip.reason, []).append(name)
    ordered = sorted(reasons.items(), key=lambda item: item[1])
    return [(reason, list(dict.fromkeys(filter(None, names)))) for reason, names in ordered]


def plural(count: int, one: str, many: str | None = None) -> str:
    """A number of things: ``1 edit``, ``2 edits``."""
    return f"{count} {one if count == 1 else many or one + 's'}".replace("infos", "info")
