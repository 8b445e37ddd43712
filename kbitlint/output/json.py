"""The JSON format: a versioned document with its own record types, independent of the internal classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.result import AuditResult, Failure, Suppressed
    from kbitlint.violation import Edit, Fix, Location, Violation

VERSION = 1


def render(reports: Sequence[AuditResult], failures: Sequence[Failure] = (), unused: Sequence[str] = ()) -> str:
    """Return all reports of one run as one JSON document with sorted keys.

    Args:
        reports: The reports, one for each target.
        failures: Targets that could not be audited.
        unused: One line for each suppression that matches no violation.
    """
    document = {
        "version": VERSION,
        "targets": [_report(report) for report in reports],
        "failures": [{"target": failure.target, "error": failure.error} for failure in failures],
        "unused_suppressions": list(unused),
    }
    return dumped(document)


def dumped(document: Any) -> str:
    """Return a document as JSON that every parser accepts.

    A file name may contain bytes that are not UTF-8. Python keeps them as lone surrogates, which JSON does not allow
    (RFC 8259, 8.2). They become escapes, as in all other formats.
    """
    text = json.dumps(document, indent=2, sort_keys=True)
    return json.dumps(_as_text(document), indent=2, sort_keys=True) if "\\ud" in text else text


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {_as_text(key): _as_text(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_text(entry) for entry in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the document, which the package contains."""
    from importlib.resources import files  # only the schema needs it

    text = files("kbitlint.output").joinpath("report.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _report(report: AuditResult) -> dict[str, Any]:
    applied = report.applied
    record: dict[str, Any] = {
        "target": report.target,
        "summary": report.summary,
        "notes": list(report.notes),
        "weights_read": report.weights_read,
        "violations": [_violation(violation) for violation in report.violations],
        "suppressed": [_suppressed(entry) for entry in report.suppressed],
        "skips": [{"code": skip.code, "surface": skip.surface.value, "reason": skip.reason} for skip in report.skips],
        "crashes": [{"code": crash.code, "surface": crash.surface.value, "error": crash.error} for crash in report.crashes],
        "ran": [{"code": code, "surface": surface.value} for code, surface in report.ran],
        "planned": None,
        "fixed": None,
    }
    if report.planned is not None:
        record["planned"] = {
            "safe": [_edit(edit) for edit in report.planned.safe],
            "unsafe": [_edit(edit) for edit in report.planned.unsafe],
            "diff": report.planned.diff,
            "unsafe_diff": report.planned.unsafe_diff,
        }
    if applied is not None:
        probe = applied.probe
        record["fixed"] = {
            "edits": [_edit(edit) for edit in applied.edits],
            "passes": applied.passes,
            "held_back": applied.held_back,
            "taken_back": [_edit(edit) for edit in applied.taken_back],
            "left_behind": applied.left_behind,
            "lines_to_add": list(applied.lines_to_add),
            "diff": applied.diff,
            "probe": None
            if probe is None
            else {
                "device": probe.device,
                "loss": probe.loss,
                "finite_gradients": probe.gradients,
                "expected_gradients": probe.expected,
                "at_embeddings": probe.at_embeddings,
                "stepped": probe.stepped,
                "peak_bytes": probe.peak_bytes,
                "failure": probe.failure,
                "as_before": probe.as_before,
            },
        }
    return record


def _violation(violation: Violation) -> dict[str, Any]:
    return {
        "code": violation.code,
        "slug": violation.slug,
        "severity": violation.severity.value,
        "consequence": violation.consequence.value,
        "message": violation.message,
        "surface": violation.surface.value,
        "at": _at(violation.at),
        "evidence": dict(violation.evidence),
        "fix": None if violation.fix is None else _fix(violation.fix),
    }


def _at(at: Location) -> dict[str, Any]:
    places = {"line": at.line, "column": at.column, "end_line": at.end_line, "end_column": at.end_column}
    return {"path": at.path, "file": at.file, **places}


def _suppressed(entry: Suppressed) -> dict[str, Any]:
    return {"violation": _violation(entry.violation), "by": entry.by, "reason": entry.reason}


def _fix(fix: Fix) -> dict[str, Any]:
    return {"title": fix.title, "safety": fix.safety.value, "edits": [_edit(edit) for edit in fix.edits]}


def _edit(edit: Edit) -> dict[str, Any]:
    return {"kind": edit.kind, "path": edit.path, "arguments": dict(edit.arguments), "adds_bytes": edit.adds_bytes}
