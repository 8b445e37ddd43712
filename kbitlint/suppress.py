"""Suppression of violations: ``ignore-in`` patterns with reasons, and a baseline of counts.

Suppressions only change the report; a suppressed violation stays in it. A suppression that matches nothing is
reported. A baseline has a count for each file, rule and place, as ESLint's bulk suppressions do. If more are found, the
report lists all of them. If fewer are found, it advises to prune the baseline.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from dataclasses import field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint import registry
from kbitlint.files.project import file_of, name_in
from kbitlint.lazy_dataclass import dataclass
from kbitlint.module_paths import fold, matches
from kbitlint.result import Suppressed
from kbitlint.target import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kbitlint.files.baseline import Counts
    from kbitlint.result import AuditResult
    from kbitlint.violation import Severity, Violation


_CELL = re.compile(r"cell \d+ ?")
#: a place with the digest of a line's code, which names the line in another file too
_OF_CODE = re.compile(r"(?:^| )[0-9a-f]{12}$")


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
    root: Path = field(default_factory=Path.cwd)
    """The root of the project, from which the baseline names files."""


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
        kept, left_over = _without_baseline(kept, chosen)
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


def _without_baseline(report: AuditResult, chosen: Suppressions) -> tuple[AuditResult, list[str]]:
    if not chosen.baseline:
        return report, []
    keys = {id(violation): key_of(report, violation, chosen.root) for violation in report.violations}
    found = Counter(keys.values())
    limits = dict(_entries(chosen.baseline))
    covered = {key for key in found if found[key] <= limits.get(key, 0)}
    unused = [
        f"baseline {file}: {code} at {place}: allows {limits[file, code, place]}, there are {found[file, code, place]}"
        for file, code, place in sorted(limits)
        if found[file, code, place] < limits[file, code, place] and _saw(report, chosen.root, file, code)
    ]
    notes = tuple(
        f"the baseline allows {limits[key]} {key[1]} in {key[0]} at {key[2]}, there are {found[key]}"
        for key in sorted(found)
        if found[key] > limits.get(key, found[key])
    )
    left = tuple(violation for violation in report.violations if keys[id(violation)] not in covered)
    taken = tuple(Suppressed(v, "baseline", "in the baseline") for v in report.violations if keys[id(v)] in covered)
    kept = dataclasses.replace(report, violations=left, suppressed=(*report.suppressed, *taken), notes=(*report.notes, *notes))
    return kept, unused


Key = tuple[str, str, str]
"""(file or target, code, place), as a baseline names a violation."""


def key_of(report: AuditResult, violation: Violation, root: Path) -> Key:
    """Return the key of a violation: it is the same from every folder, for every target, and when its line moves."""
    at = violation.at
    file = name_in(root, file_of(report.target, at.file) if at.file else report.target)
    if not at.line:
        return file, violation.code, fold(at.path) or ("(file)" if at.file else "(model)")
    import hashlib  # only a baseline needs OpenSSL

    digest = hashlib.sha256(" ".join(at.code.split()).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return file, violation.code, " ".join(filter(None, [_CELL.sub("", at.path), digest]))


def _entries(counts: Counts) -> Iterator[tuple[Key, int]]:
    for file, codes in counts.items():
        for code, places in codes.items():
            yield from (((file, code, place), number) for place, number in places.items())


def _saw(report: AuditResult, root: Path, file: str, code: str) -> bool:
    """Return whether the report would hold a violation of a rule in a file, if it were there."""
    audited = name_in(root, report.target)
    below = Path(file).suffix in SUFFIXES and (audited == "." or file.startswith(f"{audited or '.'}/"))
    return (file == audited or below) and code in {code for code, _ in report.ran}


def counts_of(reports: Sequence[AuditResult], root: Path) -> Counts:
    """Return the baseline that would suppress every violation of these reports that no pattern ignores."""
    most: Counter[Key] = Counter()
    for report in reports:
        violations = (*report.violations, *(s.violation for s in report.suppressed if s.by == "baseline"))
        most |= Counter(key_of(report, violation, root) for violation in violations)  # a file may be in two targets
    return _nested(most)


def followed(known: Counts, reports: Sequence[AuditResult], root: Path) -> Counts:
    """Return a baseline in which a file that was renamed or moved has its new name: the same code breaks the same rules there.

    Args:
        known: The baseline.
        reports: The reports of the run.
        root: The root of the project.
    """
    entries = dict(_entries(known))
    gone = [key for key in entries if _OF_CODE.search(key[2]) and not (root / key[0]).exists()]
    if not gone:
        return known
    for key, number in Counter(key_of(report, v, root) for report in reports for v in report.violations).items():
        before = next((old for old in gone if old[1:] == key[1:] and entries.get(old) == number), None)
        if before is not None and key not in entries:
            entries[key] = entries.pop(before)
    return _nested(entries)


def _nested(entries: Mapping[Key, int]) -> Counts:
    counts: Counts = {}
    for (file, code, place), number in sorted(entries.items()):
        if number:
            counts.setdefault(file, {}).setdefault(code, {})[place] = number
    return counts


def written(known: Counts, reports: Sequence[AuditResult], root: Path, *, prune: bool) -> Counts:
    """Return the baseline after a run. Files that were not audited and rules that did not run keep their counts.

    Args:
        known: The baseline before the run.
        reports: The reports of the run.
        root: The root of the project.
        prune: Whether counts may only decrease.
    """
    before, found = dict(_entries(known)), dict(_entries(counts_of(reports, root)))
    kept = {key: number for key, number in before.items() if not any(_saw(report, root, *key[:2]) for report in reports)}
    if prune:
        found = {key: min(number, found.get(key, 0)) for key, number in before.items() if key not in kept}
    return _nested(kept | found)
