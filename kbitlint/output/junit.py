"""JUnit XML for the test views of CI services: one suite for each target, one case for each rule.

A rule with violations at or above ``fail_on`` is a failure, and a crash an error. A rule that could not run is skipped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from kbitlint.output.physical_location import found
from kbitlint.output.wording import printable
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kbitlint.result import AuditResult, Failure
    from kbitlint.rule import Rule


def render(
    reports: Sequence[AuditResult],
    failures: Sequence[Failure] = (),
    *,
    rules: Iterable[Rule] = (),
    fail_on: Severity = Severity.WARNING,
) -> str:
    """Return all reports of one run as one JUnit document.

    Args:
        reports: The reports, one for each target.
        failures: Targets that could not be audited; each is a case with an error.
        rules: The rules, whose slugs name the cases. CI services track a case by its name, so it is the same for a pass and
            a failure.
        fail_on: The least severity that fails a case; violations below it are in the output of the case.
    """
    root = ET.Element("testsuites", name="kbitlint")
    slugs = {rule.meta.code: rule.meta.slug for rule in rules}
    for report in reports:
        _suite(root, report.target or "(model)", _cases(report, slugs, fail_on))
    for failure in failures:
        case = ET.Element("testcase", classname=_text(failure.target), name="audit", time="0")
        ET.SubElement(case, "error", message=_text(failure.error), type="failure").text = _text(failure.error)
        _suite(root, failure.target, [case])
    for kind in ("tests", "failures", "errors", "skipped"):
        root.set(kind, str(sum(int(suite.get(kind, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _suite(root: ET.Element, name: str, cases: Iterable[ET.Element]) -> None:
    suite = ET.SubElement(root, "testsuite", name=_text(name), time="0")
    suite.extend(cases)
    suite.set("tests", str(len(suite)))
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(sum(case.find(tag) is not None for case in suite)))


def _cases(report: AuditResult, slugs: Mapping[str, str], fail_on: Severity) -> list[ET.Element]:
    groups = [group for group in found(report) if group.reason is None]
    slugs = {**slugs, **{group.first.code: group.first.slug for group in groups}}
    codes = {code for code, _ in report.ran} | {crash.code for crash in report.crashes} | {group.first.code for group in groups}
    cases = []
    for code in sorted(codes | {skip.code for skip in report.skips if skip.code}):
        name = f"{code} {slugs.get(code, '')}".strip() or "audit"
        case = ET.Element("testcase", classname=_text(report.target or "(model)"), name=name, time="0")
        own = [group for group in groups if group.first.code == code]
        failed = [group for group in own if group.first.severity >= fail_on]
        if failed:
            severity = max(group.first.severity for group in failed).value
            # each on its line: where the report goes to the log of a runner, a name with a line end must not begin a command
            texts = [printable(f"{group.place.file}:{group.place.line}: {group.message}") for group in failed]
            element = ET.SubElement(case, "failure", message=_text(failed[0].message), type=severity)
            element.text = _text("\n".join(texts))
        for crash in report.crashes:
            if crash.code == code:
                element = ET.SubElement(case, "error", message=_text(crash.error), type="crash")
                element.text = _text(crash.traceback or crash.error)
        if code not in codes:
            reasons = sorted({skip.reason for skip in report.skips if skip.code == code})
            ET.SubElement(case, "skipped", message=_text("; ".join(reasons)))
        below = [printable(f"{group.first.severity.value}: {group.message}") for group in own if group.first.severity < fail_on]
        if below:
            ET.SubElement(case, "system-out").text = _text("\n".join(below))
        cases.append(case)
    return cases


def _text(text: str) -> str:
    """Return the text with escapes for characters that XML forbids or that a terminal would interpret."""
    return re.sub(r"[^\t\n]+", lambda match: printable(match[0]), text)
