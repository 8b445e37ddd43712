"""SARIF 2.1.0 for code scanning services.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. Every result has a physical location, because GitHub
refuses an upload without one; module paths are its logical locations. Violations with one cause are one result.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.files.project import root_of
from kbitlint.output.json import dumped
from kbitlint.output.physical_location import Found, Place, found, place_of
from kbitlint.output.replacements import replacements
from kbitlint.rule_docs import explain, page_of, summary
from kbitlint.suppress import key_of
from kbitlint.version import HOME, VERSION
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
    seen: Counter[str] = Counter()
    run = {
        "tool": {"driver": _driver(described)},
        "invocations": [
            {
                "executionSuccessful": not failures and not any(report.crashes for report in reports),
                "toolExecutionNotifications": notifications,
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_result(report, group, index, seen) for report, group in groups],
    }
    return dumped({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _driver(rules: Sequence[Rule]) -> dict[str, Any]:
    return {
        "name": "kbitlint",
        "informationUri": HOME,
        "semanticVersion": VERSION,
        "version": VERSION,
        "rules": [_rule(rule) for rule in rules],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.meta.code,
        "name": rule.meta.slug,
        "shortDescription": {"text": type(rule).title()},
        "fullDescription": {"text": summary(rule)},  # GitHub requires it, with 1024 characters at most
        **({"helpUri": page_of(rule.meta.code)} if rule.meta.code.startswith("KB") else {}),
        "help": {"text": explain(rule), "markdown": explain(rule)},
        "defaultConfiguration": {"level": _LEVELS[rule.meta.severity]},
        "properties": {"since": rule.meta.since},
    }


def _result(report: AuditResult, group: Found, index: dict[str, int], seen: Counter[str]) -> dict[str, Any]:
    violation = group.first
    result: dict[str, Any] = {
        "ruleId": violation.code,
        "level": _LEVELS[violation.severity],
        "message": {"text": f"{group.message} ({violation.consequence.value})"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": group.place.uri},
                    "region": _region(group.place),
                },
                "logicalLocations": [
                    {"fullyQualifiedName": path, "kind": "module"} for path, _ in group.modules if path != "(model)"
                ],
            }
        ],
        "occurrenceCount": group.count,
        "partialFingerprints": {"kbitlint/v2": _fingerprint(report, group, seen)},
        "properties": {
            "slug": violation.slug,
            "target": report.target,
            "consequence": violation.consequence.value,
            "evidence": dict(violation.evidence),
            "fix": None if violation.fix is None else {"title": violation.fix.title, "safety": violation.fix.safety.value},
        },
    }
    fixes = _fixes(group)
    if fixes:
        result["fixes"] = fixes
    if violation.code in index:
        result["ruleIndex"] = index[violation.code]
    if group.reason is not None:
        result["suppressions"] = [{"kind": "external", "justification": group.reason}]
    return result


def _region(place: Place) -> dict[str, int]:
    if not place.column:
        return {"startLine": place.line}
    start = {"startLine": place.line, "startColumn": place.column}
    return {**start, "endLine": place.end_line, "endColumn": place.end_column}


def _fingerprint(report: AuditResult, group: Found, seen: Counter[str]) -> str:
    """Return what names a result when lines have moved: the file in the project, the rule, and the code or the modules."""
    root = root_of(Path.cwd())
    places = sorted({key_of(report, violation, root) for violation in group.violations})
    text = ":".join([places[0][0], group.first.code, *(place for _, _, place in places)])
    seen[text] += 1
    return f"{text}:{seen[text]}"


def _fixes(group: Found) -> list[dict[str, Any]]:
    """Return the fix of a result as SARIF replaces text; none if it changes something else than this file."""
    fix = group.first.fix
    if fix is None or not group.first.at.file:
        return []
    changes = [
        {
            "deletedRegion": {
                "startLine": change.line,
                "startColumn": change.column,
                "endLine": change.end_line,
                "endColumn": change.end_column,
            },
            "insertedContent": {"text": change.text},
        }
        for change in replacements(group.place.file, fix.edits)
    ]
    if not changes:
        return []
    artifact = {"artifactLocation": {"uri": group.place.uri}, "replacements": changes}
    return [{"description": {"text": f"{fix.title} ({fix.safety.value})"}, "artifactChanges": [artifact]}]


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
