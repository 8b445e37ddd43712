"""One page that stands alone: verdict, violations, modules and memory, for a CI artifact or a colleague.

The page asks nothing of the network and runs nothing but its own script: a content security policy names the hashes of
its style and its script. Every text is escaped by the template engine; the tree is drawn from data, as text nodes.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from kbitlint import __version__
from kbitlint.errors import KbitlintError
from kbitlint.model.memory_facts import KINDS, OFF, ON
from kbitlint.paths import fold
from kbitlint.report.places import found
from kbitlint.report.text import causes, edit_lines, plural, printable, probed, size, skipped
from kbitlint.report.tree import tree_of
from kbitlint.violation import Safety, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kbitlint.model.memory_facts import MemoryReport, StateMemory
    from kbitlint.report.tree import Node, Tree
    from kbitlint.rule import Rule
    from kbitlint.violation import Failure, Report, Violation

#: rows of one cause and of the tree without JavaScript; JSON has them all
_MAX_PLACES, _MAX_ROWS = 60, 400
_WHOLE = "the whole model"


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    label: str
    count: int
    evidence: tuple[tuple[str, str], ...]
    path: str
    """One module or parameter that it stands for; empty where it is none of the tree."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Cause:
    number: int
    first: Violation
    count: int
    title: str
    """The first line of the rule's document."""
    why: tuple[tuple[tuple[str, bool], ...], ...]
    """Paragraphs of (text, whether it is code)."""
    places: tuple[_Place, ...]
    further: int
    """Places that are not shown."""
    marks: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """One span of a bar."""

    kind: str
    start: float
    width: float
    """Percent of the whole bar."""
    label: str
    size: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    total: str
    at: str
    parts: tuple[_Part, ...]


def render(
    reports: Sequence[Report],
    failures: Sequence[Failure] = (),
    unused: Sequence[str] = (),
    *,
    rules: Iterable[Rule] = (),
    fail_on: Severity = Severity.WARNING,
) -> str:
    """All reports of one run as one page.

    Args:
        reports: What was audited.
        failures: Targets that could not be audited.
        unused: Suppressions that match nothing any more.
        rules: Whose documents say why a violation matters.
        fail_on: The least severity that fails the run.

    Raises:
        KbitlintError: jinja2 is not installed.
    """
    known = {rule.meta.code: type(rule) for rule in rules}
    sections = [_section(number, report, known, fail_on) for number, report in enumerate(reports)]
    worst = max([report.exit_code(fail_on) for report in reports] + [2] * bool(failures), default=2)
    title = (reports[0].target or reports[0].summary) if len(reports) == 1 else plural(len(reports) + len(failures), "target")
    return _page(sections=sections, failures=failures, unused=unused, title=title, worst=worst, budget=None)


def render_memory(report: MemoryReport) -> str:
    """What training takes in memory as one page."""
    return _page(
        sections=[], failures=(), unused=(), title=report.target or report.summary, worst=None, budget=_budget(report)
    )


def _page(**values: Any) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise KbitlintError("--format html needs jinja2: pip install jinja2") from error

    def shown(value: object) -> object:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=PackageLoader("kbitlint.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        finalize=shown,
    )
    style, script = (files("kbitlint.report").joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return made.get_template("page.html").render(
        style=Markup(style),  # noqa: S704  # our own file
        script=Markup(script),  # noqa: S704  # our own file
        policy={"style": _hash(style), "script": _hash(script)},
        version=__version__,
        **values,
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# ------------------------------------------------------------------------------------------------------- one report


def _section(number: int, report: Report, rules: Mapping[str, type[Rule]], fail_on: Severity) -> dict[str, Any]:
    groups = causes(report.violations)
    counts = Counter(violation.severity for violation in report.violations)
    in_tree = bool(report.outline)
    shown = [_cause(n, group, rules, in_tree=in_tree) for n, group in enumerate(groups)]
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
        "tree": None if tree is None else _drawn(tree),
        "data": None if tree is None else _data(tree, shown),
        "budget": None if report.memory is None else _budget(report.memory, _mode_now(tree)),
        "rules": len({code for code, _ in report.ran}),
        "surfaces": [surface.value for surface in report.surfaces],
        "skipped": list(skipped(report, verbose=True)),
        "suppressed": [(group.message, group.first.code, group.reason) for group in found(report) if group.reason is not None],
        "edits": _edits(report),
        "probe": None if report.applied is None or report.applied.probe is None else probed(report.applied.probe),
    }


def _verdict(report: Report, code: int) -> str:
    probe = report.applied.probe if report.applied else None
    if probe is not None and probe.refutes:
        return "Not ready: the fix breaks training, and nothing was kept"
    if code == 2:  # noqa: PLR2004  # an exit code
        return "Incomplete: not everything could be audited"
    if not report.ran:
        return "Nothing to check"
    if code:
        return "Not ready to train" if report.at_least(Severity.ERROR) else "Needs attention"
    return "Ready to train" if report.violations else "Clean: ready to train"


def _state(report: Report, code: int) -> str:
    """How the verdict is coloured."""
    if code == 0:
        return "clean"
    return "warned" if code == 1 and not report.at_least(Severity.ERROR) else "failing"


def _cause(number: int, group: list[Violation], rules: Mapping[str, type[Rule]], *, in_tree: bool) -> _Cause:
    from kbitlint.docs import sections

    first = group[0]
    rule = rules.get(first.code)
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
        why=_paragraphs(sections(rule).get("Why is this bad?", "")) if rule else (),
        places=tuple(places[:_MAX_PLACES]),
        further=sum(place.count for place in places[_MAX_PLACES:]),
        marks=tuple(marks),
    )


def _paragraphs(text: str) -> tuple[tuple[tuple[str, bool], ...], ...]:
    """Paragraphs of Markdown as far as rules write it: backticks, and no other mark."""
    blocks = (" ".join(block.split()) for block in text.split("\n\n"))
    return tuple(tuple((part, bool(number % 2)) for number, part in enumerate(block.split("`"))) for block in blocks if block)


def _places(group: list[Violation], *, in_tree: bool) -> list[_Place]:
    """Places that differ in layer numbers only, and have the same evidence, as one."""
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
    if name.endswith("bytes") and isinstance(value, int):
        return size(value)
    if name == "shape" and isinstance(value, (list, tuple)):
        return " × ".join(map(str, value))
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int)) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, dict) and all(isinstance(item, (str, int)) for item in value.values()):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return json.dumps(value, default=str, ensure_ascii=False)


def _edits(report: Report) -> list[tuple[str, str, list[str]]]:
    """(title, diff, lines) of what was or would be changed."""
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


# --------------------------------------------------------------------------------------------------------- the tree


def _data(tree: Tree, shown: Sequence[_Cause]) -> str:
    """The tree as JSON that no text in it can end: the script draws it row by row."""
    document = {
        "nodes": [
            {
                **_facts(node),
                "f": list(node.causes),
                "h": [[printable(child.label), [list(span) for span in child.spans], child.count, child.node] for child in node.children],
            }
            for node in tree.nodes
        ],
        "causes": [{"code": printable(cause.first.code), "severity": cause.first.severity.value} for cause in shown],
    }
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _facts(node: Node) -> dict[str, Any]:
    """What a row shows, in words."""
    return {
        "c": printable(node.module.class_name),
        "s": " × ".join(map(str, node.module.shape)),
        "m": node.modules,
        "n": _count(node.numel),
        "b": size(node.nbytes),
        "d": [[_kind(name), _SHORT.get(name, printable(name)), share] for name, share in _shares(node)],
        "t": _trains(node),
        "k": _checkpoints(node),
        "a": node.module.adapter,
        "v": [[name, count] for name, count in sorted(node.severities, key=lambda pair: -_order(pair[0]))],
    }


def _order(severity: str) -> int:
    return list(Severity).index(Severity(severity))


def _shares(node: Node) -> list[tuple[str, float]]:
    return [(name, round(100 * count / node.nbytes, 2)) for name, count in node.stored if node.nbytes]


#: dtypes as people write them where there is little room
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def _kind(stored: str) -> str:
    """How a storage is coloured: the name of a dtype tells its width, and whatever is none is packed."""
    if stored in ("float32", "float64"):
        return "full"
    return "half" if stored in ("float16", "bfloat16") else "packed"


def _trains(node: Node) -> str:
    if not node.trainable:
        return "frozen" if node.numel else ""
    if node.trainable == node.numel:
        return "all"
    share = 100 * node.trainable / node.numel
    return f"{share:.2g}%" if share >= 0.01 else "<0.01%"  # noqa: PLR2004  # what two digits show


def _checkpoints(node: Node) -> str:
    known = dict(node.checkpoints)
    total, off = sum(known.values()), known.get("no", 0)
    if not total:
        return ""
    if off == total:
        return "off"
    ways = ", ".join(way for way in known if way != "no")
    return ways if not off else f"{ways} on {total - off} of {total}"


def _count(number: int) -> str:
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return str(number)


def _drawn(tree: Tree) -> list[tuple[int, str, Mapping[str, Any], bool]]:
    """(level, label, facts, whether it is closed again) of each row, depth first: the tree without JavaScript."""
    return list(_rows(tree))


def _rows(tree: Tree) -> Iterator[tuple[int, str, Mapping[str, Any], bool]]:
    left = _MAX_ROWS
    stack = [(1, "", tree.root)]
    while stack and left:
        level, label, node = stack.pop()
        left -= 1
        yield level, label, _facts(node), bool(node.children)
        for child in reversed(node.children):
            times = f" ×{child.count}" if child.count > 1 else ""
            stack.append((level + 1, f"{child.label}{times}", tree.nodes[child.node]))


# ------------------------------------------------------------------------------------------------------------ memory

_PARTS = {
    "quantized weights": ("quantized weights", "quantization state"),
    "other weights": ("norms", "embeddings and head", "other weights", "buffers"),
    "adapters": ("adapters",),
}


def _mode_now(tree: Tree | None) -> str:
    """The mode of checkpointing that the model is in; empty where its layers differ or it is not known."""
    ways = {way == "no" for way, _ in tree.root.checkpoints} if tree else set()
    return {(True,): OFF, (False,): ON}.get(tuple(ways), "")


def _budget(report: MemoryReport, now: str = "") -> dict[str, Any]:

    modes = list(dict.fromkeys(mode for state in report.states for mode in state.steps))
    most = max((step.peak for state in report.states for step in state.steps.values()), default=0)
    figures = [
        (mode, mode == now, [_bar(state, mode, most) for state in report.states if mode in state.steps]) for mode in modes
    ]
    rows: list[tuple[str, list[str]]] = []

    def row(label: str, values: list[int | None]) -> None:
        if any(values):
            rows.append((label, ["–" if value is None else size(value) for value in values]))

    for kind in KINDS:
        row(kind, [state.resident.get(kind) for state in report.states])
    row("gradients", [state.gradients if state.steps else None for state in report.states])
    row("optimizer state", [state.optimizer if state.steps else None for state in report.states])
    row("logits and loss", [next((s.logits for s in state.steps.values()), None) for state in report.states])
    for title, name in (("activations", "activations"), ("peak", "peak")):
        for mode in modes:
            values = [getattr(state.steps[mode], name) if mode in state.steps else None for state in report.states]
            row(f"{title}, {mode}", values)
    return {
        "report": report,
        "figures": figures,
        "rows": rows,
        "states": [state.name for state in report.states],
        "failures": [(state.name, state.failure) for state in report.states if state.failure],
        "kinds": [*_PARTS, "optimizer state", "gradients, activations and temporaries"],
    }


def _bar(state: StateMemory, mode: str, most: int) -> _Bar:
    """The peak of a step, of the most that any step takes; what comes and goes is what nothing else accounts for."""
    step = state.steps[mode]
    spans = [(name, sum(state.resident.get(kind, 0) for kind in kinds)) for name, kinds in _PARTS.items()]
    spans.append(("optimizer state", state.optimizer))
    spans.append(("gradients, activations and temporaries", step.peak - sum(count for _, count in spans)))
    parts: list[_Part] = []
    start = 0.0
    for number, (name, count) in enumerate(spans):
        if count > 0:
            width = 100 * count / most
            parts.append(_Part(f"part-{number}", round(start, 3), round(width, 3), name, size(count)))
            start += width
    return _Bar(state.name, size(step.peak), step.peak_at, tuple(parts))
