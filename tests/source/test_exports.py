"""Python files that were exported from notebooks: what parses is judged, and the rest is a skip with its line."""

from __future__ import annotations

import pytest

import kbitlint
from kbitlint.errors import TargetError

LOAD = """\
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("lab/base", load_in_8bit=True)
"""


def written(tmp_path, text):
    path = tmp_path / "notes.py"
    path.write_text(text)
    return path


def found(path):
    report = kbitlint.check(str(path))
    return [(v.code, v.at.line) for v in report.violations], [skip.reason.rpartition("notes.py ")[2] for skip in report.skips]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("!pip install -q peft trl\n", id="Colab"),
        pytest.param("# Databricks notebook source\n%pip install peft\n# COMMAND ----------\n", id="Databricks"),
        pytest.param("# MAGIC %md\n# MAGIC Some words: a, b\n%matplotlib inline\n", id="MAGIC"),
        pytest.param("files = !ls\n%%time\n", id="assigned"),
    ],
)
def test_magics_are_read_as_nothing(tmp_path, head):
    text = head + LOAD + "!cp -r out /content/drive/13B\n"

    assert found(written(tmp_path, text)) == ([("KB522", head.count("\n") + 2)], [])


def test_a_cell_in_another_python_is_a_skip_with_its_line(tmp_path):
    text = "# COMMAND ----------\nprint 'old'\n# COMMAND ----------\n" + LOAD
    codes, (skip,) = found(written(tmp_path, text))

    assert codes == [("KB522", 5)]
    assert skip.startswith("is not valid Python at line 2 (")


def test_a_fix_changes_an_export_and_leaves_its_magics(tmp_path):
    path = written(tmp_path, "!pip install peft\n" + LOAD)
    kbitlint.fix(str(path))
    text = path.read_text()

    assert text.startswith("!pip install peft\n")
    assert "quantization_config=BitsAndBytesConfig(load_in_8bit=True)" in text
    assert found(path) == ([], [])


def test_a_script_that_is_no_export_stays_an_error(tmp_path):
    with pytest.raises(TargetError, match="is not valid Python"):
        kbitlint.check(str(written(tmp_path, "from peft import PeftModel\nprint 'old'\n")))


def test_a_pin_in_a_magic_counts(tmp_path):
    assert found(written(tmp_path, "!pip install transformers==4.40.0\n" + LOAD))[0] == []
