"""The language server, with a real client over its standard streams."""

from __future__ import annotations

import asyncio
import sys

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, RANKED

pygls = pytest.importorskip("pygls")

from lsprotocol import types as lsp  # noqa: E402  # behind the check that they are there
from pygls.lsp.client import LanguageClient  # noqa: E402

from kbitlint.errors import KbitlintError  # noqa: E402  # as above

PREPARE = "model = prepare_model_for_kbit_training(model)"
FAULTY = IMPORTS + LOADED + f'name = "\U0001f600"; {PREPARE}\n' + ADAPTED + RANKED
LINE = FAULTY.split("\n").index(f'name = "\U0001f600"; {PREPARE}')
#: encodings that an editor offers, the first one first, and the units that the emoji takes in that which is agreed on
ENCODINGS = [((), 2), (("utf-8", "utf-16"), 4), (("utf-32",), 1)]


async def session(tmp_path, encodings):
    """What an editor sees: findings at opening, a fix, the rule on hover, findings after the fix and in half a statement."""
    client = LanguageClient("editor", "1")
    arrived = asyncio.Queue()

    @client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    def published(params):
        arrived.put_nowait([(d.code, d.severity, d.range) for d in params.diagnostics])

    await client.start_io(sys.executable, "-m", "kbitlint", "lsp")
    started = await client.initialize_async(
        lsp.InitializeParams(
            capabilities=lsp.ClientCapabilities(general=lsp.GeneralClientCapabilities(position_encodings=encodings or None)),
            root_uri=tmp_path.as_uri(),
        )
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
    asked = [["source.fixAll"], ["source.organizeImports"], ["quickfix"]]
    kinds = [
        await client.text_document_code_action_async(
            lsp.CodeActionParams(document, place, lsp.CodeActionContext(diagnostics=[], only=only))
        )
        for only in asked
    ]
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
    code = await asyncio.wait_for(client._server.wait(), 30)
    await client.stop()
    return started, opened, actions, kinds, hover, fixed, half, typed, unsaved, code


@pytest.mark.slow
@pytest.mark.parametrize(("encodings", "units"), ENCODINGS)
def test_an_editor_gets_findings_fixes_and_rules(tmp_path, encodings, units):
    started, opened, actions, kinds, hover, fixed, half, typed, unsaved, code = asyncio.run(
        asyncio.wait_for(session(tmp_path, encodings), 120)
    )

    assert started.server_info.name == "kbitlint"
    start = len('name = ""; model = ') + units
    end = start + len("prepare_model_for_kbit_training(model)")
    place = lsp.Range(lsp.Position(LINE, start), lsp.Position(LINE, end))
    assert opened == [("KB401", lsp.DiagnosticSeverity.Warning, place)]
    assert [(action.title, action.is_preferred, action.diagnostics[0].range) for action in actions] == [
        ("kbitlint: checkpoint without reentry [KB401]", True, place),
    ]
    assert [[action.kind for action in made] for made in kinds] == [["source.fixAll.kbitlint"], [], ["quickfix"]]
    (whole,) = kinds[0][0].edit.changes.values()
    assert "use_reentrant" in whole[0].new_text
    assert hover.contents.value.startswith("# reentrant-checkpointing (KB401)")
    assert (fixed, half) == ([], [])
    assert (typed, unsaved, code) == ([opened], opened, 0)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ("", [("KB401", "warning")]),
        ('ignore = ["KB401"]', []),
        ('severity = { KB401 = "info" }', [("KB401", "info")]),
        ('ignore-in = [{ rule = "KB401", path = "jobs/*", reason = "known" }]', []),
        ('extend-exclude = ["jobs/"]', []),
        ('baseline = "known.json"', []),
        ('training = "one.yaml"', [("KB401", "info")]),  # one process: reentry trains there
    ],
)
def test_a_project_s_settings_decide(tmp_path, monkeypatch, run, settings, left):
    """As those of ``kbitlint check`` do, wherever the editor was started."""
    from kbitlint.lsp import violations_of

    file = tmp_path / "jobs" / "train.py"
    file.parent.mkdir()
    file.write_text(FAULTY)
    (tmp_path / "one.yaml").write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\n")
    run("check", "jobs/train.py", "--write-baseline", "--baseline", "known.json")
    (tmp_path / "pyproject.toml").write_text(f"[tool.kbitlint]\n{settings}\n")
    monkeypatch.chdir("/")

    assert [(violation.code, violation.severity.value) for violation in violations_of(str(file), FAULTY)] == left
    assert violations_of(str(tmp_path / "notes.txt"), FAULTY) == ()


def test_wrong_settings_are_told(tmp_path):
    from kbitlint.lsp import violations_of

    (tmp_path / "pyproject.toml").write_text('[tool.kbitlint]\nignroe = ["KB401"]\n')

    with pytest.raises(KbitlintError, match="ignroe"):
        violations_of(str(tmp_path / "train.py"), FAULTY)
