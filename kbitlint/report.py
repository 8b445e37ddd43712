"""Results that show and save themselves: the return values of the Python API.

``kbitlint.result`` has the data; this module may import the renderers of ``kbitlint.output``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.output import formats, saved, text
from kbitlint.output.wording import plural
from kbitlint.result import AuditResult
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from kbitlint.engine import Outcome


class Report(AuditResult):
    """The outcome of one audit of one target, including the checks that could not run.

    ``print`` shows it as text, a notebook as a page. Its data are the attributes of ``AuditResult``: ``violations``,
    ``suppressed``, ``skips``, ``crashes``, ``ran``, ``notes``, ``planned``, ``applied``, ``memory``.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report in the text format."""
        return text.render(self)

    def __repr__(self) -> str:
        """Return the target and the number of violations of each severity, on one line."""
        counts = Counter(violation.severity for violation in self.violations)
        found = [plural(counts[severity], severity.value) for severity in reversed(Severity) if counts[severity]]
        found += [f"{len(self.crashes)} crashed"] * bool(self.crashes)
        empty = "clean" if self.ran else "nothing checked"
        return f"<Report {self.target or self.summary or 'of a model'}: {', '.join(found) or empty}>"

    def _repr_html_(self) -> str:
        return saved.framed(self.to_html())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data: a target of the JSON format, whose schema the package contains."""
        document = json.loads(self.to_json())
        return dict(document["targets"][0])

    def to_json(self) -> str:
        """Return the report as a document of the JSON format."""
        return formats.render("json", [self], fail_on=Severity.WARNING)

    def to_html(self) -> str:
        """Return the report as a page: one file, without a request to another host."""
        return formats.render("html", [self], fail_on=Severity.WARNING)

    def save(self, file: str | Path) -> Path:
        """Write the report to a file, and return its path.

        Args:
            file: The file. Its suffix decides the format: .html, .json, .sarif, .xml (JUnit) or .txt.

        Raises:
            KbitlintError: The suffix is none of these, or the file cannot be written.
        """
        path = Path(file)
        return saved.write(path, formats.render(saved.format_of(path), [self], fail_on=Severity.WARNING))


def report_of(name: str, facts: Any, outcome: Outcome, trace: Any = None, **further: Any) -> Report:
    """Return the report of one audit.

    Args:
        name: The target.
        facts: The facts of the model; None if no model was audited.
        outcome: The outcome of the rules.
        trace: The facts of a step without weights; None if none ran.
        **further: Further fields of the report.
    """
    return Report(
        target=name,
        summary=facts.summary() if facts is not None else "",
        violations=outcome.violations,
        skips=(*outcome.skips, *further.pop("skips", ())),
        crashes=outcome.crashes,
        ran=outcome.ran,
        trace_seconds=trace.seconds if trace is not None else None,
        weights_read=facts is not None and not facts.on_meta,
        **further,
    )
