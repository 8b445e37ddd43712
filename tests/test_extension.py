"""What an extension costs: each test adds one to a copy of the project, in as few files as promised, and uses it there."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kbitlint.output import formats

pytestmark = pytest.mark.usefixtures("preloaded")

ROOT = Path(__file__).parents[1]
FOLDERS = ("kbitlint", "rules", "tests", "benchmarks")


class Copy:
    """A copy of the project whose modules win over the installed ones."""

    def __init__(self, folder):
        self.folder = folder
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "kbitlint_rules").symlink_to(folder / "rules")

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")

    def insert(self, name, before, text):
        """Write a text before the only occurrence of another one."""
        old = (self.folder / name).read_text(encoding="utf-8")
        assert old.count(before) == 1
        self.write(name, old.replace(before, text + before))

    def append(self, name, text):
        self.write(name, (self.folder / name).read_text(encoding="utf-8") + text)

    def run(self, *arguments):
        """The ended process of ``python -m ...`` in the copy; kbitlint imports nothing from its working folder."""
        place = self.folder / "work" if arguments[0] == "kbitlint" else self.folder
        place.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=place, env=environment, capture_output=True, text=True, check=False
        )

    def tests(self, *arguments):
        """(exit code, how many passed or failed) of pytest in the copy."""
        done = self.run("pytest", "-q", "-p", "no:cacheprovider", *arguments)
        sys.stdout.write(done.stdout + done.stderr)  # pytest shows it where this test fails: it names the line in the copy
        return done.returncode, (done.stdout or done.stderr).strip().splitlines()[-1].partition(" in ")[0].partition(",")[0]

    @property
    def written(self):
        """The files that are new or differ from those of the project."""
        return {
            path.relative_to(self.folder).as_posix()
            for name in FOLDERS
            for path in (self.folder / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
            if not (ROOT / path.relative_to(self.folder)).is_file()
            or path.read_bytes() != (ROOT / path.relative_to(self.folder)).read_bytes()
        }


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_a_rule_is_two_files(copy):
    def renamed(path):
        text = (ROOT / path).read_text(encoding="utf-8").replace("KB220", "KB299")
        return text.replace("quantized-without-adapters", "bare-model").replace("QuantizedWithoutAdapters", "BareModel")

    copy.write("tests/rules/test_bare_model.py", renamed("tests/rules/test_quantized_without_adapters.py"))
    code, _ = copy.tests("tests/rules/test_bare_model.py", "-x")
    assert code == 1
    copy.write("rules/bare_model.py", renamed("rules/quantized_without_adapters.py"))

    code, said = copy.tests("tests/rules/test_bare_model.py", "tests/test_rules_meta.py", "-k", "bare_model or KB299 or ranges")

    assert (code, "failed" in said) == (0, False)
    assert "KB299  bare-model" in copy.run("kbitlint", "rules").stdout
    assert copy.run("kbitlint", "explain", "bare-model").stdout.startswith("# bare-model (KB299)")
    assert copy.written == {"rules/bare_model.py", "tests/rules/test_bare_model.py"}


TSV = '''"""The report as lines of columns."""

from __future__ import annotations


def render(reports, failures=()):
    """Return a line for each violation and each target that could not be audited."""
    lines = [(v.code, str(v.at), v.message) for report in reports for v in report.violations]
    lines += [("", failure.target, failure.error) for failure in failures]
    return "\\n".join("\\t".join(text.encode("unicode_escape").decode() for text in line) for line in lines)
'''
TSV_TEST = """

def test_tsv_has_a_line_for_each_violation(run, tmp_path):
    from script_cases import IMPORTS, LOADED, TRAINED

    (tmp_path / "train.py").write_text(IMPORTS + LOADED + TRAINED)

    result = run("check", "train.py", "gone.py", "--select", "KB220", "--format", "tsv")

    assert result.stdout.splitlines() == [
        "KB220\\ttrain.py:10 Trainer\\tthe quantized model has no adapters, and Trainer refuses it",
        "\\tgone.py\\tgone.py: there is no such file or folder",
    ]
"""


def test_a_report_format_is_three_files(copy):
    copy.append("tests/output/test_formats.py", TSV_TEST)
    selected = ("tests/output/test_formats.py", "-k", "tsv")
    assert copy.tests(*selected) == (1, "1 failed")
    copy.write("kbitlint/output/tsv.py", TSV)
    copy.insert("kbitlint/output/formats.py", '    Format("junit",', '    Format("tsv", "spreadsheets", "tsv:render"),\n')

    assert copy.tests(*selected) == (0, "2 passed")  # the other is about hostile names, in every format
    assert "|tsv|" in copy.run("kbitlint", "check", "--help").stdout
    assert copy.written == {"kbitlint/output/tsv.py", "kbitlint/output/formats.py", "tests/output/test_formats.py"}


def test_names_of_formats_are_listed_once():
    lists = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Tuple, ast.List, ast.Set))
        if len({item.value for item in node.elts if isinstance(item, ast.Constant)} & set(formats.NAMES)) > 2
    }

    assert lists == set()


METHOD = """\
    Method(
        "ternary",
        "TernaryConfig",
        ("group_size",),
        (Layer("TernaryLinear", 2, "ternary"),),
        tensors=r"\\.ternary_codes$",
        hub_name="ternary",
        trains=False,
        refuses_bare=True,
    ),
"""
METHOD_TEST = """

TERNARY = "model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config=TernaryConfig(groupsize=8))\\n"


@pytest.mark.parametrize(
    ("code", "after", "severity", "message"),
    [
        ("KB220", "TRAINED", "error", "the quantized model has no adapters, and Trainer refuses it"),
        ("KB524", "ADAPTED TRAINED", "error", "ternary cannot be trained through"),
        ("KB521", "", "warning", "TernaryConfig knows no groupsize and drops it"),
    ],
)
def test_ternary_in_scripts(code, after, severity, message):
    import script_cases as written

    body = TERNARY + "".join(getattr(written, name) for name in after.split())
    found = written.findings(code, body, imports=written.IMPORTS + "from transformers import TernaryConfig\\n")
    assert found == [(severity, (written.TRAINED if after else TERNARY).strip(), message)]


def test_ternary_in_layers_tensors_and_names():
    from kbitlint.files import packing
    from kbitlint.upstream.hub_names import stored_quantized

    assert packing_of(layer("TernaryLinear")) == Packing("ternary", 2, "ternary", features=(8, 4))
    assert packing.packing_of({"model.up_proj.ternary_codes": None}).method == "ternary"
    assert stored_quantized("org/Llama-3-8B-Ternary")
"""


def test_a_quantization_method_is_two_files(copy):
    copy.append("tests/model/test_quantized.py", METHOD_TEST)
    selected = ("tests/model/test_quantized.py", "-k", "ternary")
    assert copy.tests(*selected) == (1, "4 failed")
    copy.insert("kbitlint/upstream/quantization.py", '    Method("metal",', METHOD)

    assert copy.tests(*selected) == (0, "4 passed")
    assert copy.written == {"kbitlint/upstream/quantization.py", "tests/model/test_quantized.py"}


#: the keys of a framework that does not exist
PROGRAM = """\
    Program(
        "tunesmith",
        ("model", "tuning_kind", "packed_by", "target_modules", "adapter_rank", "dataset"),
        3,
        ("packed_by",),
        "model",
        "transformers.Trainer",
        adapter="tuning_kind",
        not_adapters=("full",),
        adapts_by_default=True,
        bits="packed_by",
        bits_values=(("nf4", 4),),
    ),
"""
SCRIPT = """\
model: Qwen/Qwen2.5-7B-Instruct
tuning_kind: lora
packed_by: nf4
target_modules: all-linear
adapter_rank: 8
dataset: AI-ModelScope/alpaca-gpt4-data-en
bf16: true
gradient_checkpointing: true
gradient_checkpointing_kwargs:  # note: KB401
  use_reentrant: true
"""
PROGRAM_TEST = '        ("model: a/b\\ntuning_kind: lora\\npacked_by: nf4\\nadapter_rank: 8\\n", ".yaml", "tunesmith"),\n'


def test_the_configuration_of_a_framework_is_three_files_and_one_row(copy):
    copy.write("tests/data/scripts/tunesmith_qlora.yaml", SCRIPT)
    copy.insert("tests/source/test_configs.py", '        ("name: web\\nload_in_4bit: true\\n"', PROGRAM_TEST)
    selected = ("tests/source/test_configs.py", "tests/source/test_scripts.py", "-k", "tunesmith or known_by_its_keys")
    assert copy.tests(*selected)[0] == 1
    copy.insert("kbitlint/upstream/programs.py", '    Program(\n        "accelerate",', PROGRAM)

    code, said = copy.tests(*selected)

    assert (code, "failed" in said) == (0, False)
    recipe = str(copy.folder / "tests/data/scripts/tunesmith_qlora.yaml")
    found = copy.run("kbitlint", "check", recipe, "--select", "KB401", "--format", "github").stdout
    assert "tunesmith_qlora.yaml,line=9" in found
    assert copy.written == {
        "kbitlint/upstream/programs.py",
        "tests/data/scripts/tunesmith_qlora.yaml",
        "tests/source/test_configs.py",
    }
