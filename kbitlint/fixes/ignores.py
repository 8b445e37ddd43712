"""Writes ``# kbitlint: ignore[...]`` comments beside violations, for a project that accepts them line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.audit.scripts import run
from kbitlint.errors import KbitlintError
from kbitlint.facts.span_edits import KIND, OverlapError
from kbitlint.files.checkpoint import inside
from kbitlint.fixes.files import FixedFile
from kbitlint.lazy_dataclass import dataclass
from kbitlint.source import documents
from kbitlint.source.folders import walk
from kbitlint.target import CHECKPOINT_FILES, Kind
from kbitlint.violation import Edit, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.rule import Rule
    from kbitlint.source.documents import Document
    from kbitlint.target import Target
    from kbitlint.violation import Violation


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file with its new comments, and the lines at which none could be written."""

    file: FixedFile
    comments: int
    left: tuple[str, ...]
    """``file:line: CODE`` of each violation that no comment silences."""


def add_ignores(
    target: Target, rules: tuple[Rule, ...], context: TrainingContext, least: Severity = Severity.INFO
) -> list[Ignored]:
    """Return the files of a target with a comment for each violation at or above a severity. Nothing is written."""
    root = Path(target.place)
    if target.kind is Kind.SCRIPT:
        files = [(root, target.text)]
    else:
        files = [(path, path.relative_to(root).as_posix()) for path in walk(root) if inside(path, root)]
    found = (_ignored(path, name, rules, context, least) for path, name in files if path.name not in CHECKPOINT_FILES)
    return [ignored for ignored in found if ignored is not None and (ignored.comments or ignored.left)]


def _ignored(path: Path, name: str, rules: tuple[Rule, ...], context: TrainingContext, least: Severity) -> Ignored | None:
    try:
        document = documents.read(path, name)
    except KbitlintError:
        return None  # the audit reports why
    if document is None:
        return None
    before, comments = document, 0
    left: dict[tuple[str, str], None] = {}
    while True:
        violations = [v for v in run(rules, document.facts, context)[0].violations if v.at.line and v.severity >= least]
        lines: dict[tuple[str, int], list[Violation]] = {}
        for violation in violations:
            if (str(violation.at), violation.code) not in left:
                lines.setdefault((_cell(violation), violation.at.line or 0), []).append(violation)
        if not lines:
            break
        group = next(iter(lines.values()))
        after = _with_comment(document, group, rules, context)
        if after is None:
            left.update(dict.fromkeys((str(violation.at), violation.code) for violation in group))
        else:
            document, comments = after, comments + 1
    file = FixedFile(path, name, before.raw, document.raw, document.encoding)
    return Ignored(file, comments, tuple(f"{place}: {code}" for place, code in left))


def _cell(violation: Violation) -> str:
    word, _, rest = violation.at.path.partition(" ")
    return rest.partition(" ")[0] if word == "cell" else ""


def _with_comment(
    document: Document, group: list[Violation], rules: tuple[Rule, ...], context: TrainingContext
) -> Document | None:
    """Return the document with a comment that silences a group of violations of one line; None if none does."""
    codes = sorted({violation.code for violation in group})
    for edits in _candidates(document, group[0], ", ".join(codes)):
        try:
            text, _ = documents.changed(document, [edits])
            again = documents.parse(document.path, text.encode(document.encoding), document.facts.file)
        except (KbitlintError, OverlapError, UnicodeEncodeError):
            continue
        if again is None or documents.unsound(document, again, edits):
            continue
        before, after = (_count(each, codes, rules, context) for each in (document, again))
        if after == before - len(group):
            return again
    return None


def _count(document: Document, codes: list[str], rules: tuple[Rule, ...], context: TrainingContext) -> int:
    return sum(violation.code in codes for violation in run(rules, document.facts, context)[0].violations)


def _candidates(document: Document, violation: Violation, codes: str) -> Iterator[tuple[Edit, ...]]:
    """Yield edits that may silence a line: in a comment that is there, at its end, above it, above its statement."""
    facts = document.facts
    if document.path.suffix == ".json":
        return  # JSON has no comments
    first = next((line for line, number in facts.cells if str(number) == _cell(violation)), 1)
    line = first + (violation.at.line or 1) - 1
    for ignore in facts.ignores:
        if ignore.names and ignore.first <= line <= ignore.last:
            yield facts.name_in_comment(ignore, codes)
    lines = facts.text.split("\n")
    comment = f"# kbitlint: ignore[{codes}]"
    start = sum(len(text) + 1 for text in lines[: line - 1])
    end = start + len(lines[line - 1].rstrip())
    yield (_inserted(facts.file, end, f"  {comment}"),)
    for number in range(line, max(line - 40, first - 1), -1):
        text = lines[number - 1]
        indent = text[: len(text) - len(text.lstrip())]
        place = sum(len(text) + 1 for text in lines[: number - 1])
        yield (_inserted(facts.file, place, f"{indent}{comment}\n"),)


def _inserted(file: str, offset: int, text: str) -> Edit:
    return Edit(KIND, file, {"start": offset, "end": offset, "was": "", "text": text})
