"""Text functions that formats share: escapes, line breaks, plurals, causes, and sentences about probes and skips."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from kbitlint.module_paths import fold_all
from kbitlint.sizes import size
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kbitlint.result import AuditResult, Probe
    from kbitlint.violation import Edit, Violation


class Pen:
    """A function that colours text with one ANSI style; with an empty style, it changes nothing."""

    def __init__(self, ansi: str) -> None:
        self.ansi = ansi

    def __call__(self, text: str) -> str:
        """Return the text in this style."""
        return f"\x1b[{self.ansi}m{text}\x1b[0m" if self.ansi else text


def printable(text: str) -> str:
    """Return the text with control characters escaped: a name in a model could contain a terminal's escape sequences."""
    if text.isprintable():  # as nearly every text is, lines of megabytes in notebooks too
        return text
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)


def wrapped(text: str, width: int, indent: str, pen: Pen | None = None) -> list[str]:
    """Return the text in lines of at most ``width`` columns, without control characters."""
    lines = textwrap.wrap(
        printable(text), width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [pen(line) for line in lines] if pen else lines


def header(target: str, about: Iterable[str], width: int) -> list[str]:
    """Return the lines of a report's head: the target and its description, on as few lines as possible."""
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
    """Return the violations grouped by cause: errors first, then by code and message."""
    groups: dict[tuple[str, ...], list[Violation]] = {}
    for violation in violations:
        groups.setdefault(violation.cause, []).append(violation)
    return sorted(groups.values(), key=lambda group: (_rank(group[0].severity), group[0].code, group[0].message))


def _rank(severity: Severity) -> int:
    return -list(Severity).index(severity)


def edit_lines(edits: Iterable[Edit], width: int, mark: str) -> Iterator[str]:
    """Yield the lines of a list of edits; edits that differ in layer numbers only share a line with their count."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for edit in edits:
        arguments = ", ".join(f"{name}={value}" for name, value in sorted(edit.arguments.items()))
        kinds.setdefault((edit.kind, arguments), []).append(edit.path)
    for (kind, arguments), paths in kinds.items():
        yield printable(f"  {mark} {kind}" + (f" ({arguments})" if arguments else ""))
        for place, count in fold_all(paths):
            text = f"      {printable(place or '(model)')}"
            yield text + " " * max(1, width - len(text) - len(str(count))) + str(count)


def probed(probe: Probe) -> str:
    """Return the result of the training step after a fix, as one sentence."""
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


#: Most codes in one line of text. Longer lists are counted; JSON and --verbose list all codes.
NAMED = 4


def skipped(report: AuditResult, *, verbose: bool = False) -> list[tuple[str, list[str]]]:
    """Return the (reason, codes) of skipped checks, each reason once.

    A code includes the surface if its rule ran on another surface.

    Args:
        report: The report.
        verbose: Whether to include rules that only apply to runs of a kind, such as several ranks, that the context does
            not state.
    """
    ran = {code for code, _ in report.ran}
    reasons: dict[str, list[str]] = {}
    for skip in report.skips:
        if verbose or not skip.unstated:
            name = f"{skip.code} ({skip.surface.value})" if skip.code in ran else skip.code
            reasons.setdefault(skip.reason, []).append(name)
    ordered = sorted(reasons.items(), key=lambda item: item[1])
    return [(reason, list(dict.fromkeys(filter(None, names)))) for reason, names in ordered]


def some(names: Sequence[str], most: int) -> str:
    """Return the first of some names, and how many more there are: ``a, b, and 3 more``."""
    shown = ", ".join(map(printable, names[:most]))
    return f"{shown}, and {len(names) - most} more" if len(names) > most else shown


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: ``1 edit``, ``2 edits``."""
    return f"{count} {one if count == 1 else many or one + 's'}".replace("infos", "info")
