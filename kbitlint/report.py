"""Results that show and save themselves: the return values of the Python API.

``kbitlint.result`` has the data; this module may import the renderers of ``kbitlint.output``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.fit_result import FitResult
from kbitlint.output import fit, formats, memory, text
from kbitlint.output.wording import plural
from kbitlint.result import AuditResult, MemoryResult
from kbitlint.sizes import size
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from kbitlint.engine import Outcome

#: ends of a file's name -> format
SUFFIXES = {".html": "html", ".json": "json", ".sarif": "sarif", ".xml": "junit", ".txt": "text"}
#: a page in a notebook: it brings its style, follows the light or dark mode of the browser, and takes the height it needs
_FRAME = (
    '<iframe title="kbitlint" srcdoc="{}" style="width: 100%; height: {}px; border: 0"'
    " onload=\"this.style.height = Math.min(this.contentDocument.documentElement.scrollHeight + 8, 900) + 'px'\"></iframe>"
)


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
        return _framed(self.to_html())

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
        return _saved(path, formats.render(_format(path, SUFFIXES), [self], fail_on=Severity.WARNING))


class MemoryReport(MemoryResult):
    """The memory of training for several states of one model; ``print`` shows a table, a notebook a page."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report in the format of ``kbitlint memory``."""
        return memory.render_text(self)

    def __repr__(self) -> str:
        """Return the batch and the least peak of each state, on one line."""
        peaks = {state.name: min(step.peak for step in state.steps.values()) for state in self.states if state.steps}
        named = ", ".join(f"{name} {size(peak)}" for name, peak in peaks.items())
        return (
            f"<MemoryReport {self.target or self.summary}, {self.batch[0]} x {self.batch[1]} tokens: {named or 'not measured'}>"
        )

    def _repr_html_(self) -> str:
        return _framed(self.to_html())

    def to_dict(self) -> dict[str, Any]:
        """Return the memory as plain data; all sizes are bytes."""
        return dict(json.loads(self.to_json()))

    def to_json(self) -> str:
        """Return the memory as a JSON document; all sizes are bytes."""
        return formats.render_memory("json", self)

    def to_html(self) -> str:
        """Return the memory as a page."""
        return formats.render_memory("html", self)

    def save(self, file: str | Path) -> Path:
        """Write the memory to a file, and return its path.

        Args:
            file: The file. Its suffix decides the format: .html, .json or .txt.

        Raises:
            KbitlintError: The suffix is none of these, or the file cannot be written.
        """
        path = Path(file)
        known = {suffix: name for suffix, name in SUFFIXES.items() if name in formats.MEMORY}
        return _saved(path, formats.render_memory(_format(path, known), self))


def _framed(page: str) -> str:
    from html import escape  # only a notebook needs it

    return _FRAME.format(escape(page), 420)


def _format(path: Path, known: dict[str, str]) -> str:
    name = known.get(path.suffix.lower())
    if name is None:
        raise KbitlintError(f"{path}: the format follows the end of the name: {', '.join(known)}")
    return name


def _saved(path: Path, content: str) -> Path:
    try:
        atomic.replace(path, (content + "\n").encode(errors="backslashreplace"))
    except OSError as error:
        raise KbitlintError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


class FitReport(FitResult):
    """Whether a run fits its cards."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the report in the format of ``kbitlint fit``."""
        return fit.render_text(self)


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
