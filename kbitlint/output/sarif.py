"""SARIF 2.1.0 for code scanning services.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. Every result has a physical location, because GitHub
refuses an upload without one; module paths are its logical locations. Violations with one cause are one result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.output.json import dumped
from kbitlint.output.physical_location import Found, found, place_of
from kbitlint.rule_docs import explain
from kbitlint.version import VERSION
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kbitlint.result import AuditResult, Failure
    from kbitlint.rule import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def render(
    reports: Sequence[AuditResult], failures: Sequence[Failure] = (), unused: Sequence[str] = (), *, rules: Iterable[Rule] = ()
) -> str:
    """Return all reports as one SARIF log with one run.

    Args:
        reports: The reports, one for each target.
        failures: Targets that could not be audited; each is a notification, and the execution counts as failed.
        unused: One line for each suppression that matches no violation; each is a notification.
        rules: The rules to describe; rules that no report mentions are left out.
    """
    groups = [(report, group) for report in reports for group in found(report)]
    shown = {group.first.code for _, group in groups} | {code for report in reports for code, _ in report.ran}
    described = [rule for rule in rules if rule.meta.code in shown]
    index = {rule.meta.code: number for number, rule in enumerate(described)}
    notifications = [*_notifications(reports), *(_failure(failure) for failure in failures)]
    notifications += [_notification("", "note", line) for line in unused]
    run = {
        "tool": {"driver": _driver(described)},
        "invocations": [
            {
                "executionSuccessful": not failures and not any(report.crashes for report in reports),
                "toolExecutionNotifications": notifications,
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_result(report, group, index) for report, group in groups],
    }
    return dumped({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _driver(rules: Sequence[Rule]) -> dict[str, Any]:
    return {
        "name": "kbitlint",
        "semanticVersion": VERSION,
        "version": VERSION,
        "rules": [_rule(rule) for rule in rules],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.meta.code,
        "name": rule.meta.slug,
        "shortDescription": {"text": type(rule).title()},
        "help": {"text": explain(rule), "markdown": explain(rule)},
        "defaultConfiguration": {"level": _LEVELS[rule.meta.severity]},
        "properties": {"since": rule.meta.since},
    }


def _result(report: AuditResult, group: Found, index: dict[str, int]) -> dict[str, Any]:
    violation = group.first
    result: dict[str, Any] = {
        "ruleId": violation.code,
        "level": _LEVELS[violation.severity],
        "message": {"text": f"{group.message} ({violation.consequence.value})"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": group.place.uri},
                    "region": {"startLine": group.place.line},
                },
                "logicalLocations": [
                    {"fullyQualifiedName": path, "kind": "module"} for path, _ in group.modules if path != "(model)"
                ],
            }
        ],
        "occurrenceCount": group.count,
        "partialFingerprints": {
            "kbitlint/v1": ":".join([report.target, violation.code, *(path for path, _ in group.modules)]),
        },
        "properties": {
            "slug": violation.slug,
            "target": report.target,
            "consequence": violation.consequence.value,
            "evidence": dict(violation.evidence),
            "fix": None if violation.fix is None else {"title": violation.fix.title, "safety": violation.fix.safety.value},
        },
    }
    if violation.code in index:
        result["ruleIndex"] = index[violation.code]
    if group.reason is not None:
        result["suppressions"] = [{"kind": "external", "justification": group.reason}]
    return result


def _notifications(reports: Iterable[AuditResult]) -> Iterable[dict[str, Any]]:
    """Yield a notification for each check that was not made: a crash is an error, and a skip a note."""
    for report in reports:
        for crash in report.crashes:
            yield _notification(report.target, "error", str(crash))
        for skip in report.skips:
            yield _notification(
                report.target, "note", f"{skip.code or 'checks'} skipped on {skip.surface.value}: {skip.reason}"
            )


def _failure(failure: Failure) -> dict[str, Any]:
    return _notification(failure.target, "error", failure.error)


def _notification(target: str, level: str, text: str) -> dict[str, Any]:
    place = {"physicalLocation": {"artifactLocation": {"uri": place_of(target).uri}}}
    return {"level": level, "message": {"text": text}, "locations": [place], "properties": {"target": target}}
