"""The table of report formats: one row for each value of ``--format``, with its render functions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kbitlint.fit_result import FitResult
    from kbitlint.memory_result import MemoryResult
    from kbitlint.result import AuditResult, Failure
    from kbitlint.violation import Severity


@dataclass(frozen=True, slots=True)
class Format:
    """A format and its render functions, as ``module:function`` below ``kbitlint.output``.

    The parameters of a function decide which values it receives: ``failures``, ``unused``, ``rules``, ``fail_on``, and the
    ``color``, ``width``, ``verbose``, ``quiet`` and ``timed`` of a terminal.
    """

    name: str
    """The value of ``--format``."""
    purpose: str
    """The readers of the format, for the table of docs/usage.md."""
    reports: str
    """The function that renders the reports of a run, which are its first argument."""
    memory: str = ""
    """The function that renders the memory of a training step; empty if the format has none."""
    fit: str = ""
    """The function that renders whether a run fits; empty if the format has none."""


FORMATS = (
    Format("text", "a terminal", "text:render_all", "memory:render_text", "fit:render_text"),
    Format("concise", "editors and `grep`: one line a finding", "concise:render"),
    Format("json", "programs; versioned, with a published JSON Schema", "json:render", "memory:render_json", "fit:render_json"),
    Format("sarif", "code scanning (SARIF 2.1.0)", "sarif:render"),
    Format("github", "annotations in a pull request, without an upload", "github:render"),
    Format("junit", "CI services that show tests: each rule is one test", "junit:render"),
    Format(
        "html",
        "a page for the browser: one file, no network",
        "html.page:render",
        "html.page:render_memory",
        "html.page:render_fit",
    ),
)
NAMES = tuple(row.name for row in FORMATS)
#: The formats of ``kbitlint memory``.
MEMORY = tuple(row.name for row in FORMATS if row.memory)
#: The formats of ``kbitlint fit``.
FIT = tuple(row.name for row in FORMATS if row.fit)


def render(
    name: str,
    reports: Sequence[AuditResult],
    failures: Sequence[Failure] = (),
    unused: Sequence[str] = (),
    *,
    fail_on: Severity,
    **layout: Any,
) -> str:
    """Return all reports of one run in a format.

    Args:
        name: One of ``NAMES``.
        reports: The reports, one for each target.
        failures: Targets that could not be audited; the text format leaves them to the error stream.
        unused: One line for each suppression that matches no violation.
        fail_on: The least severity that fails the run.
        **layout: ``color``, ``width``, ``verbose`` and ``timed`` of the text format.
    """
    given = {"failures": failures, "unused": unused, "fail_on": fail_on, **layout}
    return _call(_row(name).reports, reports, given)


def render_memory(name: str, report: MemoryResult, *, color: bool = False, width: int = 80) -> str:
    """Return the memory of a training step in one of the formats of ``MEMORY``."""
    return _call(_row(name).memory, report, {"color": color, "width": width})


def render_fit(name: str, report: FitResult, *, color: bool = False, width: int = 80) -> str:
    """Return whether a run fits in one of the formats of ``FIT``."""
    return _call(_row(name).fit, report, {"color": color, "width": width})


def _row(name: str) -> Format:
    return next(row for row in FORMATS if row.name == name)


def _call(place: str, subject: object, given: Mapping[str, Any]) -> str:
    """Call a function with those of the given values for which it has parameters."""
    from inspect import signature  # --help needs the names of the formats alone

    module, _, function = place.partition(":")
    rendered: Callable[..., str] = getattr(importlib.import_module(f"kbitlint.output.{module}"), function)
    names = signature(rendered).parameters
    wanted = {name: given[name] for name in names if name in given}
    if "rules" in names:
        from kbitlint.registry import all_rules  # as above

        wanted["rules"] = all_rules()
    return rendered(subject, **wanted)
