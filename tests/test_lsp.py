"""The language server, with a real client over its standard streams."""

from __future__ import annotations

import asyncio
import sys

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, RANKED

pygls = pytest.importorskip("pygls")

from lsprotocol import types as lsp  # noqa: E402  # behind the check that they are there
from pygls.lsp.client import LanguageClient  # noqa: E402

PREPARE = "model = prepare_model_for_kbit_training(model)"
FAULTY = IMPORTS + LOADED + f'name = "\U0001f600"; {PREPARE}\n' + ADAPTED + RANKED
LINE = FAULTY.split("\n").index(f'name = "\U0001f600"; {PREPARE}')
#: the emoji takes two units of UTF-16
START = len('name = "xx"; model = ')


async def session(tmp_path):
    """What an editor sees: findings at opening, a fix, the rule on hover, findings after the fix and in half a statement."""
    client = LanguageClient("editor", "1")
    arrived = asyncio.Queue()

    @client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    def published(params):
        arrived.put_nowait([(d.code, d.severity, d.range) for d in params.diagnostics])

    await client.start_io(sys.executable, "-m", "kbitlint", "lsp")
    started = await client.initialize_async(
        lsp.InitializeParams(capabilities=lsp.ClientCapabilities(), root_uri=tmp_path.as_uri())
    )
    client.initialized(lsp.InitializedParams())
    uri = (tmp_path / "train.py").as_uri()
    client.text_document_did_open(lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(uri, "python", 1, FAULTY)))
    opened = await asyncio.wait_for(arrived.get(), 60)
    place = opened[0][2]
    document = lsp.TextDocumentIdentifier(uri)
    actions = await client.text_document_code_action_async(
        lsp.CodeActionParams(document, place, lsp.CodeActionContext(diagnostics=[]))
    )
    hover = await client.text_document_hover_async(lsp.HoverParams(document, place.start))
    changes = [
        lsp.TextDocumentContentChangePartial(text=edit.new_text, range=edit.range) for edit in actions[0].edit.changes[uri]
    ]
    client.text_document_did_change(
        lsp.DidChangeTextDocumentParams(lsp.VersionedTextDocumentIdentifier(2, uri), list(reversed(changes)))
    )
    fixed = await asyncio.wait_for(arrived.get(), 60)
    whole = lsp.TextDocumentContentChangeWholeDocument(text=FAULTY + "def (")
    client.text_document_did_change(lsp.DidChangeTextDocumentParams(lsp.VersionedTextDocumentIdentifier(3, uri), [whole]))
    half = await asyncio.wait_for(arrived.get(), 60)
    for version in range(4, 14):
        whole = lsp.TextDocumentContentChangeWholeDocument(text=FAULTY + "#" * version)
        client.text_document_did_change(
            lsp.DidChangeTextDocumentParams(lsp.VersionedTextDocumentIdentifier(version, uri), [whole])
        )
    typed = [await asyncio.wait_for(arrived.get(), 60)]
    client.text_document_did_open(
        lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem("untitled:Untitled-1", "python", 1, FAULTY))
    )
    unsaved = await asyncio.wait_for(arrived.get(), 60)
    await asyncio.sleep(0.5)
    while not arrived.empty():
        typed.append(arrived.get_nowait())
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    return started, opened, actions, hover, fixed, half, typed, unsaved


def test_an_editor_gets_findings_fixes_and_rules(tmp_path):
    started, opened, actions, hover, fixed, half, typed, unsaved = asyncio.run(asyncio.wait_for(session(tmp_path), 120))

    assert started.server_info.name == "kbitlint"
    end = START + len("prepare_model_for_kbit_training(model)")
    place = lsp.Range(lsp.Position(LINE, START), lsp.Position(LINE, end))
    assert opened == [("KB401", lsp.DiagnosticSeverity.Warning, place)]
    assert [(action.title, action.is_preferred) for action in actions] == [
        ("kbitlint: checkpoint without reentry [KB401]", True),
    ]
    assert hover.contents.value.startswith("# reentrant-checkpointing (KB401)")
    assert (fixed, half) == ([], [])
    assert (typed, unsaved) == ([opened], opened)


def test_a_project_s_settings_decide(tmp_path):
    from kbitlint.lsp import violations_of

    file = tmp_path / "train.py"
    before = [violation.code for violation in violations_of(str(file), FAULTY)]
    (tmp_path / "pyproject.toml").write_text('[tool.kbitlint]\nignore = ["KB401"]\n')

    assert before == ["KB401"]
    assert violations_of(str(file), FAULTY) == ()
    assert violations_of(str(tmp_path / "notes.txt"), FAULTY) == ()
