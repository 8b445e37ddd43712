"""How often each rule was broken: the counts of ``--statistics``, as text or JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kbitlint.output.json import dumped
from kbitlint.violation import Safety

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kbitlint.result import AuditResult
    from kbitlint.violation import Violation


def render(name: str, reports: Sequence[AuditResult]) -> str:
    """Return the number of violations of each rule, most frequent first; as JSON if that is the format."""
    violations = [violation for report in reports for violation in report.violations]
    rows = sorted(_rows(violations), key=lambda row: (-int(str(row["count"])), str(row["code"])))
    if name == "json":
        return dumped(rows)
    if not rows:
        return "no violations"
    width = max(len(str(row["count"])) for row in rows)
    lines = [f"{row['count']:>{width}}  {row['code']}  {_mark(row)} {row['slug']}  {row['severity']}" for row in rows]
    fixable = any(row["fix"] == Safety.SAFE.value for row in rows)
    return "\n".join([*lines, *(["[*] fixable with --fix"] if fixable else [])])


def _rows(violations: Iterable[Violation]) -> list[dict[str, object]]:
    counts: Counter[tuple[str, str, str, str | None]] = Counter()
    for violation in violations:
        safety = violation.fix.safety.value if violation.fix else None
        counts[violation.code, violation.slug, violation.severity.value, safety] += 1
    return [
        {"code": code, "slug": slug, "severity": severity, "fix": safety, "count": count}
        for (code, slug, severity, safety), count in counts.items()
    ]


def _mark(row: dict[str, object]) -> str:
    return "[*]" if row["fix"] == Safety.SAFE.value else "[ ]"
