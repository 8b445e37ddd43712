"""A language server: findings while typing, fixes as code actions, the rule on hover. ``kbitlint lsp`` starts it.

It needs the extra ``kbitlint[lsp]``. The text of the editor is audited, and nothing of it runs. Audits run in a thread, one
at a time, so that the editor gets answers meanwhile. Positions of the protocol count units of the encoding that client and
server agree on, and those of kbitlint characters.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from kbitlint import api, config, registry, rule_docs, suppress
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError
from kbitlint.facts.span_edits import KIND, bounds
from kbitlint.files import baseline
from kbitlint.files.project import name_in, root_of
from kbitlint.fixes.files import mend
from kbitlint.limits import held_to
from kbitlint.source.folders import is_excluded
from kbitlint.source.line_ends import unified
from kbitlint.target import SUFFIXES, text_as
from kbitlint.version import VERSION
from kbitlint.violation import Safety, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pygls.workspace import TextDocument

    from kbitlint.violation import Edit, Violation

_SEVERITIES = {
    Severity.ERROR: lsp.DiagnosticSeverity.Error,
    Severity.WARNING: lsp.DiagnosticSeverity.Warning,
    Severity.INFO: lsp.DiagnosticSeverity.Information,
}
#: how a document without a known suffix is read, such as one that was never saved: by the language that the editor names
_LANGUAGES = {"python": ".py", "yaml": ".yaml", "json": ".json", "shellscript": ".sh"}
#: seconds without a further key after which a text is audited; each key of a fast typist would be an audit otherwise
_PAUSE = 0.15
server = LanguageServer("kbitlint", VERSION, text_document_sync_kind=lsp.TextDocumentSyncKind.Incremental)
#: document -> its version and the violations of that version
_found: dict[str, tuple[int | None, tuple[Violation, ...]]] = {}
#: what one audit holds while it runs: the engine's limits are those of one project
_audits = asyncio.Lock()
#: faults of settings that the editor has shown
_shown: set[str] = set()
_FIX_ALL = f"{lsp.CodeActionKind.SourceFixAll.value}.kbitlint"
#: bytes of the units in which a position may count: the codec, and the size of a unit
_CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}


def violations_of(path: str, text: str) -> tuple[Violation, ...]:
    """Return the violations of a text under the settings of the project around its file; none if it cannot be read.

    The project's severities, ``ignore-in``, ``exclude``, baseline and training configuration count as for ``kbitlint check``.

    Raises:
        KbitlintError: The settings are wrong; the message names the file and the key.
    """
    if not path.endswith(SUFFIXES) or path.endswith(".ipynb"):
        return ()
    settings = config.load(config.find(Path(path).parent))
    with held_to(settings.limits):
        if settings.file and is_excluded(Path(path)):
            return ()
    options: dict[str, Any] = {"select": settings.select, "ignore": settings.ignore, "limits": settings.limits}
    root = root_of(Path(settings.file or path).parent)
    target = text_as(path, text.encode("utf-8", "surrogatepass"))
    target = dataclasses.replace(target, text=name_in(root, path))
    context = TrainingContext.from_launcher_file(settings.training) if settings.training else TrainingContext()
    known = baseline.read(Path(settings.baseline)) if settings.baseline and Path(settings.baseline).exists() else {}
    registry.select(settings.select, settings.ignore, dict(settings.options))  # so that wrong settings raise
    try:
        report = api.check(target, rule_options=dict(settings.options), context=context, **options)
    except KbitlintError:
        return ()  # half a statement while typing is no finding
    chosen = suppress.Suppressions(settings.ignore_in, known, settings.severity, root)
    return suppress.apply([report], chosen)[0][0].violations


async def _look(uri: str) -> tuple[Violation, ...]:
    """Return the violations of a document as the editor has it. A request that is cancelled leaves the audit to the next."""
    return await asyncio.shield(_looked(uri))


async def _looked(uri: str) -> tuple[Violation, ...]:
    async with _audits:
        document = server.workspace.get_text_document(uri)
        known = _found.get(uri)
        if known is None or known[0] != document.version:
            version, text = document.version, document.source
            try:
                found = await asyncio.to_thread(violations_of, _name_of(document), text)
            except KbitlintError as error:
                found = ()
                _show(str(error))
            known = _found[uri] = (version, found)
        return known[1]


def _show(problem: str) -> None:
    """Tell the user that the settings are wrong, once."""
    if problem not in _shown:
        _shown.add(problem)
        server.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Error, f"kbitlint: {problem}"))


def _name_of(document: TextDocument) -> str:
    name = to_fs_path(document.uri) or document.uri
    return name if Path(name).suffix else name + _LANGUAGES.get(document.language_id or "", "")


def _range(lines: list[str], violation: Violation) -> lsp.Range:
    at = violation.at
    line = (at.line or 1) - 1
    text = lines[line] if line < len(lines) else ""
    start = _units(text, (at.column or 1) - 1) if at.column else len(text) - len(text.lstrip())
    if at.end_line and at.end_column and at.end_line <= len(lines):
        end = lsp.Position(at.end_line - 1, _units(lines[at.end_line - 1], at.end_column - 1))
    else:
        end = lsp.Position(line, _units(text, len(text)))
    return lsp.Range(lsp.Position(line, start), end)


def _units(text: str, column: int) -> int:
    """Return the units before a 0-based column of a line, in the encoding of positions that client and server agree on."""
    encoding = server.workspace.position_encoding
    codec, size = _CODECS[str(getattr(encoding, "value", encoding) or "utf-16")]
    return len(text[:column].encode(codec, "surrogatepass")) // size


async def _publish(uri: str) -> None:
    violations = await _look(uri)
    document = server.workspace.text_documents.get(uri)
    if document is None or _found.get(uri, (None,))[0] != document.version:
        return  # it was closed, or changed meanwhile: that change publishes
    lines = unified(document.source).split("\n")
    found = [_diagnostic(lines, violation) for violation in violations]
    server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, version=document.version))


def _diagnostic(lines: list[str], violation: Violation) -> lsp.Diagnostic:
    return lsp.Diagnostic(
        _range(lines, violation),
        f"{violation.message}\nmeans: {violation.consequence.value}",
        severity=_SEVERITIES[violation.severity],
        code=violation.code,
        code_description=lsp.CodeDescription(rule_docs.page_of(violation.code)) if violation.code[:2] == "KB" else None,
        source="kbitlint",
    )


@server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
async def _opened(params: lsp.DidOpenTextDocumentParams) -> None:
    await _publish(params.text_document.uri)


@server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
async def _saved(_: lsp.DidSaveTextDocumentParams) -> None:
    """Audit every open document again: it may import the saved file, or the project's settings may be others."""
    _found.clear()
    for uri in list(server.workspace.text_documents):
        await _publish(uri)


@server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
async def _changed(params: lsp.DidChangeTextDocumentParams) -> None:
    uri, version = params.text_document.uri, params.text_document.version
    await asyncio.sleep(_PAUSE)
    document = server.workspace.text_documents.get(uri)
    if document is not None and document.version == version:  # nothing was typed since, and the document is open
        await _publish(uri)


@server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
def _closed(params: lsp.DidCloseTextDocumentParams) -> None:
    _found.pop(params.text_document.uri, None)
    server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(params.text_document.uri, []))


@server.feature(
    lsp.TEXT_DOCUMENT_CODE_ACTION,
    lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix, _FIX_ALL]),
)
async def _actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
    uri, only = params.text_document.uri, params.context.only
    made = []
    if _is_wanted(lsp.CodeActionKind.QuickFix.value, only):
        made = _quick_fixes(uri, params.range, await _look(uri))
    if only and _is_wanted(_FIX_ALL, only):
        edits = await _all_fixes(uri)
        title = "kbitlint: fix all that is safe"
        made += [lsp.CodeAction(title, kind=_FIX_ALL, edit=lsp.WorkspaceEdit(changes={uri: edits}))] if edits else []
    return made


def _is_wanted(kind: str, only: Sequence[str | lsp.CodeActionKind] | None) -> bool:
    """Return whether an editor that asks for some kinds of actions asks for this one: kinds are a tree of names with dots."""
    asked = [str(getattr(one, "value", one)) for one in only or ()]
    return only is None or any(not one or kind == one or kind.startswith(f"{one}.") for one in asked)


def _quick_fixes(uri: str, around: lsp.Range, violations: Iterable[Violation]) -> list[lsp.CodeAction]:
    text = unified(server.workspace.get_text_document(uri).source)
    lines = text.split("\n")
    wanted = range(around.start.line, around.end.line + 1)
    made = []
    for violation in violations:
        place = _range(lines, violation)
        if violation.fix is None or place.end.line < wanted.start or place.start.line >= wanted.stop:
            continue
        edits = _text_edits(text, violation.fix.edits)
        if edits:
            safe = violation.fix.safety is Safety.SAFE
            made.append(
                lsp.CodeAction(
                    f"kbitlint: {violation.fix.title}{'' if safe else ' (unsafe)'} [{violation.code}]",
                    kind=lsp.CodeActionKind.QuickFix,
                    diagnostics=[_diagnostic(lines, violation)],
                    edit=lsp.WorkspaceEdit(changes={uri: edits}),
                    is_preferred=safe,
                )
            )
    return made


async def _all_fixes(uri: str) -> list[lsp.TextEdit]:
    """Return one edit that makes all safe fixes of a document, such as an editor asks for when it saves."""
    rules = {violation.code for violation in await _look(uri)}
    document = server.workspace.get_text_document(uri)
    name, text = _name_of(document), unified(document.source)
    async with _audits:
        try:
            chosen = registry.select(sorted(rules)) if rules else ()
            fixed = await asyncio.to_thread(mend, Path(name), name, chosen, TrainingContext(), Safety.SAFE, text.encode())
        except KbitlintError:
            return []
    if fixed is None or not fixed.edits:
        return []
    return [lsp.TextEdit(lsp.Range(lsp.Position(0, 0), _position(text, len(text))), fixed.after)]


def _text_edits(text: str, edits: Iterable[Edit]) -> list[lsp.TextEdit]:
    """Return the edits of a fix as the protocol has them; none if one of them is no edit of this text."""
    made = []
    for edit in edits:
        if edit.kind != KIND:
            return []
        start, end = bounds(edit)
        made.append(lsp.TextEdit(lsp.Range(_position(text, start), _position(text, end)), str(edit.arguments["text"])))
    return made


def _position(text: str, offset: int) -> lsp.Position:
    start = text.rfind("\n", 0, offset) + 1
    return lsp.Position(text.count("\n", 0, offset), _units(text[start:offset], offset - start))


@server.feature(lsp.TEXT_DOCUMENT_HOVER)
async def _hover(params: lsp.HoverParams) -> lsp.Hover | None:
    uri, at = params.text_document.uri, params.position
    violations = await _look(uri)
    lines = unified(server.workspace.get_text_document(uri).source).split("\n")
    for violation in violations:
        place = _range(lines, violation)
        if (place.start.line, place.start.character) <= (at.line, at.character) <= (place.end.line, place.end.character):
            return lsp.Hover(
                lsp.MarkupContent(lsp.MarkupKind.Markdown, rule_docs.explain(registry.find(violation.code))), place
            )
    return None


def main() -> None:
    """Serve an editor over the standard streams until it leaves.

    The server closes the streams that it gets, and what is printed meanwhile must not get between its messages.
    """
    streams = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    sys.stdout = sys.stderr
    server.start_io(*streams)
