"""Fixes source and JSON files: edits the text and audits it again until nothing is left to fix, then writes it once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint import engine
from kbitlint.audit.scripts import run
from kbitlint.errors import KbitlintError, TargetError
from kbitlint.facts.span_edits import OverlapError
from kbitlint.files.checkpoint import inside, read_checkpoint
from kbitlint.files.json_edits import KINDS, changed
from kbitlint.fixes.model import MAX_PASSES, FixError, edits_of, fixes_of, held_back
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime import content
from kbitlint.source import documents
from kbitlint.source.folders import walk
from kbitlint.target import Kind
from kbitlint.violation import Edit, Safety, Surface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.context import TrainingContext
    from kbitlint.rule import Rule
    from kbitlint.source.documents import Document
    from kbitlint.target import Target


@dataclass(frozen=True, slots=True)
class FixedFile:
    """A file before and after its fixes."""

    path: Path
    name: str
    before: str
    after: str
    encoding: str
    edits: tuple[Edit, ...] = ()
    passes: int = 0
    held_back: int = 0
    refused: str = ""
    """Why no fix of the file can be made; empty if there is no such reason."""

    def diff(self) -> str:
        """Return the change as a unified diff; an empty text if nothing changed."""
        import difflib  # only a fix or --diff needs it

        before, after = (re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text) for text in (self.before, self.after))
        lines = difflib.unified_diff(before, after, self.name, self.name, n=2)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines).rstrip("\n")


def mend(
    path: Path,
    name: str,
    rules: tuple[Rule, ...],
    context: TrainingContext,
    wanted: Safety,
    data: bytes | None = None,
) -> FixedFile | None:
    """Return a source file as its fixes leave it, or None if nothing in it concerns training. Nothing is written.

    Args:
        path: The file.
        name: Its name in reports.
        rules: The rules whose fixes are made.
        context: How the model is trained.
        wanted: The least safety of a fix.
        data: The bytes that take the place of the file's; None to read it.

    Raises:
        FixError: A fix does not remove its violation, or leaves a file that cannot be read.
    """
    document = documents.of(path, name, data)
    if document is None:
        return None
    before = document.raw
    edits: list[Edit] = []
    passes, most = 0, MAX_PASSES
    while True:
        violations = run(rules, document.facts, context)[0].violations
        fixes = list(fixes_of(violations, wanted))
        if not passes:
            most += len(fixes)  # fixes of one call overlap, so each pass makes one of them
        if not fixes:
            return FixedFile(
                path, name, before, document.raw, document.encoding, tuple(edits), passes, held_back(violations, wanted)
            )
        again, done = edited(document, fixes, name)
        if passes == most or again is None or not done:
            break
        document = again
        edits += done
        passes += 1
    codes = sorted({v.code for v in violations if v.fix is not None and v.fix.safety >= wanted})
    raise FixError(f"{', '.join(codes)}: the edits of {name} do not remove the violation; the file was left as it was")


def edited(document: Document, fixes: list[tuple[Edit, ...]], name: str) -> tuple[Document | None, tuple[Edit, ...]]:
    """Return the file after one pass, and the edits that were made.

    Raises:
        FixError: The file did not compile before, or is not sound afterwards.
    """
    if document.notebook is None and (faults := documents.faults(document)):
        raise FixError(f"{name}: does not compile ({faults[0]}), so it is not fixed; repair that first")
    try:
        text, done = documents.changed(document, fixes)
        again = documents.parse(document.path, text.encode(document.encoding), name)
    except (OverlapError, UnicodeEncodeError) as error:
        raise FixError(f"{name}: the fix does not fit the file: {error}; it was left as it was") from error
    except KbitlintError as error:
        raise FixError(f"{name}: the fix leaves a file that cannot be read ({error}); it was left as it was") from error
    problem = "" if again is None else documents.unsound(document, again, done)
    if problem:
        raise FixError(f"{name}: the fix leaves a file that {problem}; it was left as it was")
    return again, done


def mend_target(target: Target, rules: tuple[Rule, ...], context: TrainingContext, wanted: Safety) -> list[FixedFile]:
    """Return every file of a target that its fixes change, or that has unsafe fixes left. Nothing is written.

    Files that cannot be read are left out.
    """
    path = Path(target.place)
    if target.kind is Kind.SCRIPT:
        mended = mend(path, target.text, rules, context, wanted, target.data)
        return [] if mended is None else [mended]
    found = []
    for file in walk(path):
        if not inside(file, path):
            continue  # leading_out names it
        name = file.relative_to(path).as_posix()
        try:
            mended = mend(file, name, rules, context, wanted)
        except TargetError:
            continue  # the audit reports why
        except FixError as error:  # one file that cannot be fixed leaves the others their fixes
            found.append(FixedFile(file, name, "", "", "utf-8", refused=str(error)))
            continue
        if mended is not None and (mended.edits or mended.held_back):
            found.append(mended)
    return found


def mend_files(target: Target, rules: tuple[Rule, ...], context: TrainingContext, wanted: Safety) -> list[FixedFile]:
    """Return the JSON files of a checkpoint or adapter that their fixes change. Nothing is written."""
    only = Path(target.place) if target.kind is Kind.FILE else None
    facts = read_checkpoint(target.folder, only)
    if facts is None:
        return []
    violations = engine.run(rules, {Surface.FILES: facts}, context).violations
    wished = edits_of(violations, wanted)
    found = []
    for name in sorted({violation.at.file for violation in violations}):
        edits = tuple(edit for edit in wished if edit.kind in KINDS and edit.path == name)
        path = target.folder / name
        if edits:
            before = _read(path)
            after = changed(path, before, edits)
            found.append(FixedFile(path, name, before, after, "utf-8", edits, 1))
    return found


def _read(path: Path) -> str:
    try:
        return content.read_text(path)  # keeps its line ends
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def leading_out(target: Target) -> list[str]:
    """Return the files of a folder that are links out of it: they are audited, and fixed only as targets of their own."""
    root = Path(target.place)
    found = walk(root) if target.kind is Kind.TREE else []
    return [file.relative_to(root).as_posix() for file in found if not inside(file, root)]


def write(mended: Iterable[FixedFile], within: Path | None = None) -> None:
    """Write the files that changed.

    Args:
        mended: The files.
        within: The folder of a checkpoint; its links must not lead to files elsewhere. None for sources.

    Raises:
        TargetError: A file has changed since it was read, for example in an editor, or it leads out of the folder.
    """
    changing = [file for file in mended if file.after != file.before]
    for file in changing:
        if within is not None and not inside(file.path, within):
            raise TargetError(file.path, "leads out of the folder, and is not written to; replace the link by the file")
        _must_be_as_read(file)  # check all files before the first is written
        documents.must_be_writable(file.path)
    for file in changing:
        _must_be_as_read(file)
        documents.write(file.path, file.after, file.encoding)


def _must_be_as_read(file: FixedFile) -> None:
    try:
        same = content.read(file.path).decode(file.encoding) == file.before
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        raise TargetError(file.path, "was changed by something else while it was being fixed; it was left as it is now")
