"""A language server: findings while typing, fixes as code actions, the rule on hover. ``kbitlint lsp`` starts it.

It needs the extra ``kbitlint[lsp]``. The text of the editor is audited, and nothing of it runs. Positions of the protocol
count UTF-16 units, and those of kbitlint characters.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from kbitlint import api, config, registry, rule_docs
from kbitlint.errors import KbitlintError
from kbitlint.facts.span_edits import KIND, bounds
from kbitlint.source.line_ends import unified
from kbitlint.target import SUFFIXES, text_as
from kbitlint.version import VERSION
from kbitlint.violation import Safety, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def violations_of(path: str, text: str) -> tuple[Violation, ...]:
    """Return the violations of a text under the settings of the project around its file; none if it cannot be read."""
    if not path.endswith(SUFFIXES) or path.endswith(".ipynb"):
        return ()
    try:
        settings = config.load(config.find(Path(path).parent))
        options: dict[str, Any] = {"select": settings.select, "ignore": settings.ignore, "limits": settings.limits}
        report = api.check(text_as(path, text.encode()), rule_options=dict(settings.options), **options)
    except KbitlintError:
        return ()  # half a statement while typing is no finding
    return report.violations


def _look(uri: str) -> tuple[Violation, ...]:
    document = server.workspace.get_text_document(uri)
    known = _found.get(uri)
    if known is None or known[0] != document.version:
        known = (document.version, violations_of(_name_of(document), document.source))
        _found[uri] = known
    return known[1]


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
    """Return the UTF-16 units before a 0-based column of a line."""
    return len(text[:column].encode("utf-16-le")) // 2


def _publish(uri: str) -> None:
    document = server.workspace.get_text_document(uri)
    lines = unified(document.source).split("\n")
    found = [
        lsp.Diagnostic(
            _range(lines, violation),
            f"{violation.message}\nmeans: {violation.consequence.value}",
            severity=_SEVERITIES[violation.severity],
            code=violation.code,
            code_description=lsp.CodeDescription(rule_docs.page_of(violation.code)) if violation.code[:2] == "KB" else None,
            source="kbitlint",
        )
        for violation in _look(uri)
    ]
    server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, version=document.version))


@server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
def _opened(params: lsp.DidOpenTextDocumentParams) -> None:
    _publish(params.text_document.uri)


@server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
async def _changed(params: lsp.DidChangeTextDocumentParams) -> None:
    uri, version = params.text_document.uri, params.text_document.version
    await asyncio.sleep(_PAUSE)
    document = server.workspace.text_documents.get(uri)
    if document is not None and document.version == version:  # nothing was typed since, and the document is open
        _publish(uri)


@server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
def _closed(params: lsp.DidCloseTextDocumentParams) -> None:
    _found.pop(params.text_document.uri, None)
    server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(params.text_document.uri, []))


@server.feature(lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix]))
def _actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
    uri = params.text_document.uri
    text = unified(server.workspace.get_text_document(uri).source)
    lines = text.split("\n")
    wanted = range(params.range.start.line, params.range.end.line + 1)
    made = []
    for violation in _look(uri):
        place = _range(lines, violation)
        if violation.fix is None or place.end.line < wanted.start or place.start.line >= wanted.stop:
            continue
        edits = _text_edits(text, violation.fix.edits)
        if edits:
            safe = violation.fix.safety is Safety.SAFE
            title = f"kbitlint: {violation.fix.title}{'' if safe else ' (unsafe)'} [{violation.code}]"
            workspace = lsp.WorkspaceEdit(changes={uri: edits})
            made.append(lsp.CodeAction(title, kind=lsp.CodeActionKind.QuickFix, edit=workspace, is_preferred=safe))
    return made


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
def _hover(params: lsp.HoverParams) -> lsp.Hover | None:
    uri, at = params.text_document.uri, params.position
    lines = unified(server.workspace.get_text_document(uri).source).split("\n")
    for violation in _look(uri):
        place = _range(lines, violation)
        if (place.start.line, place.start.character) <= (at.line, at.character) <= (place.end.line, place.end.character):
            return lsp.Hover(
                lsp.MarkupContent(lsp.MarkupKind.Markdown, rule_docs.explain(registry.find(violation.code))), place
            )
    return None


def main() -> None:
    """Serve an editor over the standard streams until it leaves."""
    server.start_io()
