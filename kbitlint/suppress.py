"""Suppression of violations: ``ignore-in`` patterns with reasons, and a baseline of counts.

Suppressions only change the report; a suppressed violation stays in it. A suppression that matches nothing is
reported. A baseline has a count for each place and rule, as ESLint's bulk suppressions do. If more are found, the
report lists all of them. If fewer are found, it advises to prune the baseline.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from kbitlint import registry
from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.module_paths import fold, matches
from kbitlint.result import Suppressed
from kbitlint.runtime.content import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kbitlint.result import AuditResult
    from kbitlint.violation import Severity, Violation

VERSION = 1
Counts = dict[str, dict[str, dict[str, int]]]
"""target -> code -> place with folded layer numbers -> count."""


@functools.cache
def _codes(selector: str) -> frozenset[str]:
    return frozenset(rule.meta.code for rule in registry.select((selector,)))


@dataclass(frozen=True, slots=True)
class IgnoreIn:
    """One place in which a rule is not reported, with the reason."""

    rule: str
    """A code, a prefix or a slug."""
    reason: str
    path: str = "**"
    """A glob of module paths (``*`` within one component, ``**`` across components) or of file names."""
    target: str | None = None
    """A glob of targets; None for all targets."""

    def names(self, report: AuditResult, violation: Violation) -> bool:
        """Return whether the pattern matches this violation."""
        at = violation.at
        place = matches(self.path, at.path) or (bool(at.file) and fnmatchcase(at.file, self.path))
        return place and violation.code in self.codes and self.is_about(report)

    def is_about(self, report: AuditResult) -> bool:
        """Return whether the pattern matches this target."""
        return self.target is None or fnmatchcase(report.target, self.target)

    @property
    def codes(self) -> frozenset[str]:
        """Return the codes that the selector matches.

        Raises:
            SelectionError: If it matches none.
        """
        return _codes(self.rule)

    def __str__(self) -> str:
        return f"ignore-in {self.rule} at {self.path}" + (f" of {self.target}" if self.target else "")


@dataclass(frozen=True, slots=True)
class Suppressions:
    """All settings of one run that change how violations count."""

    ignored: tuple[IgnoreIn, ...] = ()
    baseline: Counts = field(default_factory=dict)
    severity: tuple[tuple[str, Severity], ...] = ()
    """(selector, severity) that overrides a rule's own severity. The most specific selector wins."""


def apply(
    reports: Sequence[AuditResult], chosen: Suppressions, *, everything: bool = False
) -> tuple[tuple[AuditResult, ...], tuple[str, ...]]:
    """Return the reports with suppressed violations set apart, and one line for each suppression that matches nothing.

    Args:
        reports: The reports of one run.
        chosen: The suppressions.
        everything: Whether the run audited all targets of the project. If True, a pattern without a target that
            matches nothing is unused.
    """
    severities = _severities(chosen.severity)
    used: set[IgnoreIn] = set()
    unused: list[str] = []
    done = []
    for report in reports:
        counted = dataclasses.replace(report, violations=tuple(_counted(v, severities) for v in report.violations))
        kept = _without_ignored(counted, chosen.ignored, used)
        kept, left_over = _without_baseline(kept, chosen.baseline.get(report.target, {}))
        unused += left_over
        done.append(kept)
    for pattern in chosen.ignored:
        about = [report for report in reports if pattern.is_about(report)]
        ran = {code for report in about for code, _ in report.ran}
        if pattern not in used and (pattern.target or everything) and about and pattern.codes <= ran:
            unused.append(f"{pattern}: suppresses nothing ({pattern.reason})")
    return tuple(done), tuple(unused)


def _severities(given: Sequence[tuple[str, Severity]]) -> dict[str, Severity]:
    found: dict[str, tuple[int, Severity]] = {}
    for selector, severity in given:
        for rule in registry.select((selector,)):
            known = found.get(rule.meta.code)
            if known is None or known[0] <= len(selector):
                found[rule.meta.code] = (len(selector), severity)
    return {code: severity for code, (_, severity) in found.items()}


def _counted(violation: Violation, severities: Mapping[str, Severity]) -> Violation:
    severity = severities.get(violation.code)
    return violation if severity is None else dataclasses.replace(violation, severity=severity)


def _without_ignored(report: AuditResult, patterns: Sequence[IgnoreIn], used: set[IgnoreIn]) -> AuditResult:
    left, suppressed = [], list(report.suppressed)
    for violation in report.violations:
        pattern = next((pattern for pattern in patterns if pattern.names(report, violation)), None)
        if pattern is None:
            left.append(violation)
        else:
            used.add(pattern)
            suppressed.append(Suppressed(violation, "ignore-in", pattern.reason))
    return dataclasses.replace(report, violations=tuple(left), suppressed=tuple(suppressed))


def _without_baseline(report: AuditResult, allowed: Mapping[str, Mapping[str, int]]) -> tuple[AuditResult, list[str]]:
    found = Counter(map(_key, report.violations))
    limits = {(code, place): limit for code, places in allowed.items() for place, limit in places.items()}
    covered = {key for key, limit in limits.items() if 0 < found[key] <= limit}
    ran = {code for code, _ in report.ran}
    unused = [
        f"baseline {report.target}: {code} at {place}: allows {limit}, there are {found[code, place]}"
        for (code, place), limit in sorted(limits.items())
        if found[code, place] < limit and code in ran
    ]
    notes = tuple(
        f"the baseline allows {limits[key]} {key[0]} at {key[1]}, there are {found[key]}"
        for key in sorted(limits)
        if found[key] > limits[key]
    )
    left = tuple(violation for violation in report.violations if _key(violation) not in covered)
    taken = tuple(Suppressed(v, "baseline", "in the baseline") for v in report.violations if _key(v) in covered)
    kept = dataclasses.replace(report, violations=left, suppressed=(*report.suppressed, *taken), notes=(*report.notes, *notes))
    return kept, unused


def _key(violation: Violation) -> tuple[str, str]:
    at = violation.at
    return violation.code, " ".join(filter(None, [at.file, fold(at.path)])) or "(model)"


def counts_of(reports: Sequence[AuditResult]) -> Counts:
    """Return the baseline that would suppress every violation of these reports that no pattern ignores."""
    counts: Counts = {}
    for report in reports:
        found = Counter(map(_key, (*report.violations, *(s.violation for s in report.suppressed if s.by == "baseline"))))
        for (code, place), number in sorted(found.items()):
            counts.setdefault(report.target, {}).setdefault(code, {})[place] = number
    return counts


def written(known: Counts, reports: Sequence[AuditResult], *, prune: bool) -> Counts:
    """Return the baseline after a run. Targets that were not audited and rules that did not run keep their counts.

    Args:
        known: The baseline before the run.
        reports: The reports of the run.
        prune: Whether counts may only decrease.
    """
    found = counts_of(reports)
    counts = {target: dict(codes) for target, codes in known.items()}
    for report in reports:
        ran = {code for code, _ in report.ran}
        before = known.get(report.target, {})
        now = dict(found.get(report.target, {}))
        kept = {code: places for code, places in before.items() if code not in ran and code not in now}
        if prune:
            now = {
                code: {place: min(limit, now[code].get(place, 0)) for place, limit in places.items()}
                for code, places in before.items()
                if code in now
            }
        merged = {code: {place: number for place, number in places.items() if number} for code, places in (kept | now).items()}
        counts[report.target] = {code: places for code, places in merged.items() if places}
    return {target: codes for target, codes in counts.items() if codes}


def write_baseline(path: Path, counts: Counts) -> None:
    """Write a baseline, sorted, so that version control can merge it.

    Raises:
        KbitlintError: If the file cannot be written.
    """
    text = json.dumps({"version": VERSION, "targets": counts}, indent=2, sort_keys=True)
    try:
        atomic.replace(path, (text + "\n").encode())
    except OSError as error:
        raise KbitlintError(f"--baseline {path}: cannot be written: {error.strerror or error}") from error


def read_baseline(path: Path) -> Counts:
    """Return the counts of a baseline file.

    Raises:
        KbitlintError: If the file cannot be read or is not a baseline. The message names the file, the key and the
            fault.
    """
    try:
        content = json.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise KbitlintError(
            f"--baseline {path}: cannot be read: {getattr(error, 'strerror', None) or error}; --write-baseline makes one"
        ) from error
    except (ValueError, RecursionError) as error:  # a number with too many digits raises ValueError
        raise KbitlintError(f"--baseline {path}: the file is not valid JSON: {error}") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise KbitlintError(f"--baseline {path}: version: must be {VERSION}; --write-baseline makes the file anew")
    targets = _table(path, "targets", content.get("targets", {}))
    return {
        target: {
            code: {
                place: _count(path, f"targets.{target}.{code}.{place}", number)
                for place, number in _table(path, f"targets.{target}.{code}", places).items()
            }
            for code, places in _table(path, f"targets.{target}", codes).items()
        }
        for target, codes in targets.items()
    }


def _table(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise KbitlintError(f"--baseline {path}: {key}: must be an object")
    return value


def _count(path: Path, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise KbitlintError(f"--baseline {path}: {key}: must be a positive number, not {value!r}")
    return value
