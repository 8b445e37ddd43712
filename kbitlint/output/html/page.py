"""The HTML page: verdict, violations, modules and memory in one file, for a CI artifact or a colleague.

The page loads nothing from the network and runs only its own script: a content security policy contains the hashes of
its style and script. The template engine escapes every text. The script draws the tree from data, as text nodes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from kbitlint.errors import KbitlintError
from kbitlint.lazy_dataclass import dataclass
from kbitlint.module_paths import fold
from kbitlint.output.html import origin, tree_rows
from kbitlint.output.html.excerpts import excerpts
from kbitlint.output.html.fit_panels import fit_data
from kbitlint.output.html.memory_bars import budget
from kbitlint.output.html.tree import tree_of
from kbitlint.output.physical_location import found
from kbitlint.output.wording import causes, edit_lines, plural, printable, probed, skipped
from kbitlint.rule_docs import sections
from kbitlint.sizes import size
from kbitlint.version import VERSION
from kbitlint.violation import Safety, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kbitlint.fit_result import FitResult
    from kbitlint.memory_result import MemoryResult
    from kbitlint.output.html.excerpts import Excerpt
    from kbitlint.result import AuditResult, Failure
    from kbitlint.rule import Rule
    from kbitlint.violation import Violation

#: Most rows of one cause. JSON has all of them.
_MAX_PLACES = 60
_WHOLE = "the whole model"
_WHY = "Why is this bad?"
_Paragraphs: TypeAlias = "tuple[tuple[tuple[str, bool], ...], ...]"


@dataclass(frozen=True, slots=True)
class _Place:
    label: str
    count: int
    evidence: tuple[tuple[str, str], ...]
    path: str
    """The path of one module or parameter of the row; empty if the tree does not contain it."""


@dataclass(frozen=True, slots=True)
class _Cause:
    number: int
    first: Violation
    count: int
    title: str
    """The first line of the rule's document."""
    why: _Paragraphs
    """Paragraphs of (text, whether it is code) pairs."""
    places: tuple[_Place, ...]
    further: int
    """The number of places that the page leaves out."""
    marks: tuple[str, ...]
    excerpts: tuple[Excerpt, ...]
    document: tuple[tuple[str, _Paragraphs], ...]
    """(heading, paragraphs) of the other sections of the rule's document."""


def render(
    reports: Sequence[AuditResult],
    failures: Sequence[Failure] = (),
    unused: Sequence[str] = (),
    *,
    rules: Iterable[Rule] = (),
    fail_on: Severity = Severity.WARNING,
) -> str:
    """Return all reports of one run as one page.

    Args:
        reports: The reports, one for each target.
        failures: Targets that could not be audited.
        unused: One line for each suppression that matches no violation.
        rules: The rules, whose documents explain why a violation matters.
        fail_on: The least severity that fails the run.

    Raises:
        KbitlintError: jinja2 is not installed.
    """
    known = {rule.meta.code: type(rule) for rule in rules}
    sections = [_section(number, report, known, fail_on) for number, report in enumerate(reports)]
    worst = max([report.exit_code(fail_on) for report in reports] + [2] * bool(failures), default=2)
    title = (reports[0].target or reports[0].summary) if len(reports) == 1 else plural(len(reports) + len(failures), "target")
    return _page(sections=sections, failures=failures, unused=unused, title=title, worst=worst)


def render_memory(report: MemoryResult) -> str:
    """Return the memory of a training step as one page.

    Raises:
        KbitlintError: jinja2 is not installed.
    """
    return _page(sections=[], failures=(), unused=(), title=report.target or report.summary, worst=None, budget=budget(report))


def render_fit(report: FitResult) -> str:
    """Return whether a run fits its cards as one page.

    Raises:
        KbitlintError: jinja2 is not installed.
    """
    return _page(sections=[], failures=(), unused=(), title=report.target or report.summary, worst=None, fit=fit_data(report))


def _page(*, budget: Any = None, fit: Any = None, **values: Any) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # only the page needs it
        from markupsafe import Markup  # as above
    except ImportError as error:
        raise KbitlintError("--format html needs jinja2: pip install jinja2") from error

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else printable(str(value))

    made = Environment(
        loader=PackageLoader("kbitlint.output.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        finalize=shown,
    )
    made.filters["joined"] = lambda texts, between: between.join(map(str, texts))  # jinja2's own filter ``join`` returns Markup
    package = files("kbitlint.output.html")
    style, script = (package.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return made.get_template("page.html").render(
        style=Markup(style),  # noqa: S704  # our own file
        script=Markup(script),  # noqa: S704  # our own file
        policy={"style": _hash(style), "script": _hash(script)},
        version=VERSION,
        project=origin.project(),
        origin=origin.words(),
        budget=budget,
        fit=fit,
        **values,
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _section(number: int, report: AuditResult, rules: Mapping[str, type[Rule]], fail_on: Severity) -> dict[str, Any]:
    groups = causes(report.violations)
    counts = Counter(violation.severity for violation in report.violations)
    in_tree = bool(report.outline)
    shown = [_cause(report.target, n, group, rules, in_tree=in_tree) for n, group in enumerate(groups)]
    tree = None
    if report.outline:
        at: dict[str, list[int]] = {}
        for cause, group in enumerate(groups):
            for violation in group:
                if not violation.at.file:
                    at.setdefault(violation.at.path, []).append(cause)
        tree = tree_of(report.outline, at, [group[0].severity for group in groups])
    code = report.exit_code(fail_on)
    return {
        "number": number,
        "report": report,
        "verdict": _verdict(report, code),
        "state": _state(report, code),
        "counts": [(severity.value, counts[severity]) for severity in reversed(Severity) if counts[severity]],
        "fixable": sum(1 for group in groups if group[0].fix and group[0].fix.safety is Safety.SAFE),
        "causes": shown,
        "tree": None if tree is None else tree_rows.listed(tree),
        "data": None if tree is None else tree_rows.data(tree, [(cause.first.code, cause.first.severity) for cause in shown]),
        "budget": None if report.memory is None else budget(report.memory, tree_rows.mode_now(tree) if tree else ""),
        "rules": len({code for code, _ in report.ran}),
        "surfaces": [surface.value for surface in report.surfaces],
        "skipped": skipped(report, verbose=True),
        "partial": bool(skipped(report)),
        "suppressed": [(group.message, group.first.code, group.reason) for group in found(report) if group.reason is not None],
        "edits": _edits(report),
        "probe": None if report.applied is None or report.applied.probe is None else probed(report.applied.probe),
    }


def _verdict(report: AuditResult, code: int) -> str:
    probe = report.applied.probe if report.applied else None
    if probe is not None and probe.refutes:
        return "Not ready: the fix breaks training, and nothing was kept"
    if code == 2:
        return "Incomplete: not everything could be audited"
    if not report.ran:
        return "Nothing to check"
    if code:
        return "Not ready to train" if report.at_least(Severity.ERROR) else "Needs attention"
    return "Ready to train" if report.violations else "Clean: ready to train"


def _state(report: AuditResult, code: int) -> str:
    """Return the colour class of the verdict."""
    if code == 0:
        return "clean"
    return "warned" if code == 1 and not report.at_least(Severity.ERROR) else "failing"


def _cause(target: str, number: int, group: list[Violation], rules: Mapping[str, type[Rule]], *, in_tree: bool) -> _Cause:
    first = group[0]
    rule = rules.get(first.code)
    document = sections(rule) if rule else {}
    places = _places(group, in_tree=in_tree)
    marks: list[str] = []
    if first.fix is not None:
        marks.append("by hand" if first.fix.safety is Safety.DISPLAY else first.fix.safety.value)
        cost = sum(edit.adds_bytes for edit in {edit for v in group if v.fix for edit in v.fix.edits})
        marks += [size(cost, sign=True)] if cost else []
    return _Cause(
        number=number,
        first=first,
        count=len(group),
        title=rule.title() if rule else first.slug,
        why=_paragraphs(document.get(_WHY, "")),
        places=tuple(places[:_MAX_PLACES]),
        further=sum(place.count for place in places[_MAX_PLACES:]),
        marks=tuple(marks),
        excerpts=excerpts(target, group),
        document=tuple((heading, _paragraphs(text)) for heading, text in document.items() if heading != _WHY),
    )


def _paragraphs(text: str) -> _Paragraphs:
    """Return the paragraphs of a rule's Markdown, which uses backticks and no other markup."""
    blocks = (" ".join(block.removeprefix("- ").split()) for block in text.replace("\n- ", "\n\n- ").split("\n\n"))
    return tuple(tuple((part, bool(number % 2)) for number, part in enumerate(block.split("`"))) for block in blocks if block)


def _places(group: list[Violation], *, in_tree: bool) -> list[_Place]:
    """Return one row for all places that have the same evidence and differ in layer numbers only."""
    alike: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    paths: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}
    for violation in group:
        evidence = tuple((name.replace("_", " "), _value(name, value)) for name, value in violation.evidence.items())
        key = (fold(str(violation.at)), evidence)
        alike.setdefault(key, []).append(str(violation.at))
        paths.setdefault(key, violation.at.path if in_tree and not violation.at.file else "")
    return [
        _Place(
            _WHOLE if key[0] == "(model)" else key[0] if len(names) > 1 else names[0],
            len(names),
            key[1],
            paths[key],
        )
        for key, names in alike.items()
    ]


def _value(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if "bytes" in name and isinstance(value, int):
        return size(value)
    if name == "shape" and isinstance(value, (list, tuple)):
        return " × ".join(map(str, value))
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int)) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, dict) and all(isinstance(item, (str, int)) for item in value.values()):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return json.dumps(value, default=str, ensure_ascii=False)


def _edits(report: AuditResult) -> list[tuple[str, str, list[str]]]:
    """Return the (title, diff, lines) of applied and of planned changes."""
    shown: list[tuple[str, str, list[str]]] = []
    if report.applied is not None and report.applied.edits:
        applied = report.applied
        title = f"Fixed with {plural(len(applied.edits), 'edit')} in {plural(applied.passes, 'pass', 'passes')}"
        shown.append((title, applied.diff, list(edit_lines(applied.edits, 80, "+"))))
        if applied.lines_to_add:
            shown.append(("To make it last, add to the factory", "", list(applied.lines_to_add)))
    if report.planned is not None:
        plan = report.planned
        for title, diff, edits in (
            ("--fix would change", plan.diff, plan.safe),
            ("--unsafe-fixes would change", plan.unsafe_diff, plan.unsafe),
        ):
            if diff or edits:
                shown.append((title, diff, list(edit_lines(edits, 80, "+"))))
    return shown
