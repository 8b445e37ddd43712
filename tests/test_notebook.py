"""Reports in a notebook and in a person's tests: pages, one-line texts, completion, files, the pytest fixture."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import plants
import pytest
import tiny
from jsonschema import Draft202012Validator

import kbitlint
from kbitlint.errors import KbitlintError
from kbitlint.output.json import schema

ROOT = Path(__file__).parents[1]
SUPPORT = str(Path(__file__).parent / "support")


@pytest.mark.slow
def test_a_real_notebook_shows_reports_as_pages_and_completes_arguments(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [
        f"import sys; sys.path.insert(0, {SUPPORT!r}); import plants, kbitlint",
        "model = plants.unprepared()",
        "report = kbitlint.check(model)\nreport",
        "report.violations[0]",
        "repr(report)",
        "kbitlint.memory(model, seq_len=16)",
        "get_ipython().Completer.use_jedi = False\nget_ipython().complete('quan', 'kbitlint.check(model, quan', 26)[1]",
        "[name for name in dir(kbitlint) if not name.startswith('_')]",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    done = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    done.execute()
    shown = [next((out["data"] for out in cell.outputs if "data" in out), {}) for cell in notebook.cells]

    assert shown[2]["text/html"].startswith('<iframe title="kbitlint" srcdoc="&lt;!doctype html&gt;')
    assert "prefers-color-scheme: dark" in shown[2]["text/html"]
    assert "<code>KB402 checkpointing-off</code>" in shown[3]["text/html"]
    assert shown[4]["text/plain"].startswith("'<Report LlamaForCausalLM 106.8K, bitsandbytes nf4 on 14 layers: ")
    assert "Memory of one training step" in shown[5]["text/html"]
    assert "quantize=" in shown[6]["text/plain"]
    assert "'check'" in shown[7]["text/plain"]
    assert "sys" not in shown[7]["text/plain"]


def test_the_notebook_of_the_documentation_runs(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells if "install" in cell.metadata.get("tags", [])] == [
        "%pip install -q 'kbitlint[model]'"
    ]
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
    environment = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=environment).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    said = "".join(out["text"] for out in outputs if out.get("name") == "stdout")
    pages = [out["data"]["text/html"] for out in outputs if "text/html" in out.get("data", {})]

    assert [page.count('<iframe title="kbitlint"') for page in pages] == [1, 1]
    assert "LoRA r=8 on 4 layers, 20% of the linear weights have an adapter, none of gate_proj" in " ".join(said.split())
    assert "8 parameters received a gradient" in said
    assert "KB202 nothing-trainable" in said
    assert [cell.outputs for cell in nbformat.read(ROOT / "docs" / "quickstart.ipynb", 4).cells if cell.get("outputs")] == []


def test_texts_of_one_line():
    report = kbitlint.check(plants.unprepared())

    assert repr(report) == "<Report LlamaForCausalLM 106.8K, bitsandbytes nf4 on 14 layers: 13 warnings>"
    assert repr(kbitlint.check(tiny.prepared(), select="KB101")).endswith(": clean>")
    norm = next(violation for violation in report.violations if violation.at.path == "model.norm")
    assert repr(norm) == (
        "<Violation KB101 warning at model.norm: norm weights are bfloat16, not float32; the computation is in float32>"
    )
    table = kbitlint.memory(tiny.prepared(), seq_len=16)
    assert repr(table).startswith(
        "<MemoryReport LlamaForCausalLM 106.8K, bitsandbytes nf4 on 14 layers, 1 x 16 tokens: as it is "
    )
    assert "\n" not in repr(table)


def test_a_card_of_a_violation_escapes_names():
    violation = kbitlint.check(plants.unprepared()).violations[0]
    hostile = type(violation)(
        **{name: getattr(violation, name) for name in violation.__slots__ if name != "message"},
        message="<script>alert()</script>",
    )

    assert "<script" not in hostile._repr_html_()


def test_reports_become_data_and_files(tmp_path):
    report = kbitlint.check(plants.unprepared())
    table = kbitlint.memory(tiny.prepared(), seq_len=16)

    Draft202012Validator(schema()).validate(json.loads(report.to_json()))
    assert [v["code"] for v in report.to_dict()["violations"]] == [v.code for v in report.violations]
    for suffix, start in ((".json", "{"), (".html", "<!doctype html>"), (".sarif", "{"), (".xml", "<?xml"), (".txt", "Llama")):
        path = report.save(tmp_path / f"report{suffix}")
        assert path.read_text().startswith(start)
    assert table.save(str(tmp_path / "memory.html")).read_text() == table.to_html() + "\n"
    assert table.to_dict()["states"][0]["name"] == "as it is"
    with pytest.raises(KbitlintError, match=r"report\.doc: the format follows the end of the name: \.html, \.json"):
        report.save(tmp_path / "report.doc")
    with pytest.raises(KbitlintError, match="the end of the name"):
        table.save(tmp_path / "memory.sarif")


@pytest.mark.parametrize("name", ["check", "fix", "fit", "plan", "memory", "assert_ready"])
def test_arguments_are_in_the_signature_and_in_the_help(name):
    function = getattr(kbitlint, name)
    parameters = inspect.signature(function).parameters

    assert {"select", "quantize", "meta", "context", "trust_remote_code"} <= set(parameters)
    assert "options" not in parameters
    with pytest.raises(TypeError, match="unknown argument 'quantise'"):
        function(tiny.prepared(), quantise="nf4", **({"gpu": "24GB"} if name == "fit" else {}))


def test_a_type_checker_sees_the_arguments(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(
        "import kbitlint\n"
        "kbitlint.check('x', quantize='nf4', select=['KB101'], meta=True)\n"
        "kbitlint.check('x', quantise='nf4')\n"
        "kbitlint.fix('x', probe_batch='two')\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", str(tmp_path / "use.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"MYPYPATH": "."})
    lines = [line for line in done.stdout.splitlines() if "use.py" in line]

    assert [line.split(": ")[0].rpartition(":")[2] for line in lines if "error" in line] == ["3", "4"], done.stdout


TESTS = """\
import plants


def test_ready(kbitlint):
    assert kbitlint.ready(plants.clean()).violations == ()


def test_not_ready(kbitlint):
    kbitlint.ready(plants.faulty_missing_input_grad_hook())
"""


@pytest.mark.usefixtures("preloaded")
def test_the_fixture_of_pytest_fails_with_the_report(tmp_path):
    (tmp_path / "test_model.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "kbitlint.pytest_plugin", str(tmp_path)]
    paths = os.pathsep.join([SUPPORT, str(ROOT)])
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "KB301 missing-input-grad-hook" in done.stdout
    assert "pytest_plugin.py" not in done.stdout


def test_the_plugin_is_announced():
    assert '[project.entry-points.pytest11]\nkbitlint = "kbitlint.pytest_plugin"\n' in (ROOT / "pyproject.toml").read_text()
