"""Annotations of a GitHub workflow: one command for each cause at each place.

The runner defines the escapes (actions/toolkit, ``packages/core/src/command.ts``): a message must escape ``%`` and line
ends, and a property also ``:`` and ``,``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.output.physical_location import LAST_RESORT, Place, found, place_of
from kbitlint.output.wording import printable
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kbitlint.result import AuditResult, Failure

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(reports: Sequence[AuditResult], failures: Sequence[Failure] = (), unused: Sequence[str] = ()) -> str:
    """Return all reports of one run as workflow commands.

    Errors are first, because GitHub displays only ten annotations of each kind for a step.
    """
    lines = [command for report in reports for command in _commands(report)]
    lines += [_command("error", place_of(failure.target), "kbitlint", failure.error) for failure in failures]
    lines += [_command("notice", Place(LAST_RESORT), "kbitlint", line) for line in unused]
    return "\n".join(sorted(lines, key=lambda line: [line.startswith(f"::{name} ") for name in ("notice", "warning", "error")]))


def _commands(report: AuditResult) -> Iterator[str]:
    name = f" [{report.target}]" if report.target else ""
    for group in found(report):
        if group.reason is None:
            title = f"{group.first.code} {group.first.slug}"
            text = f"{group.message}\nmeans: {group.first.consequence.value}"
            if group.first.fix is not None:
                text += f"\nfix: {group.first.fix.title} ({group.first.fix.safety.value})"
            yield _command(_COMMANDS[group.first.severity], group.place, title, text + name)
    for crash in report.crashes:
        yield _command("error", place_of(report.target), crash.code or "kbitlint", f"{crash}{name}")


def _command(command: str, place: Place, title: str, text: str) -> str:
    properties = {"file": place.file, "line": str(place.line), **_columns(place), "title": title}
    named = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{command} {named}::{_data(text)}"


def _columns(place: Place) -> dict[str, str]:
    """Return the end of a place as properties; the runner takes columns within one line only."""
    if not place.column:
        return {}
    if place.line != place.end_line:
        return {"endLine": str(place.end_line)}
    return {"col": str(place.column), "endColumn": str(place.end_column)}


def _data(text: str) -> str:
    text = "\n".join(map(printable, text.split("\n")))  # the runner's log interprets escape sequences, as a terminal does
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
