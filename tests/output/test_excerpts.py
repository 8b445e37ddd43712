"""What the page shows of the source: lines around a violation, the diff of its fix, the rule, and where the page comes from."""

from __future__ import annotations

import html
import json
import re

import pytest

import kbitlint
from kbitlint.output.formats import render
from kbitlint.output.html import origin
from kbitlint.output.html.excerpts import MOST, Excerpt, excerpts
from kbitlint.output.wording import causes
from kbitlint.violation import Severity

LINES = [
    "import torch",
    "from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training",
    "from transformers import AutoModelForCausalLM, BitsAndBytesConfig",
    "",
    "model = AutoModelForCausalLM.from_pretrained('m', quantization_config=BitsAndBytesConfig(load_in_4bit=True))",
    "model = get_peft_model(model, LoraConfig(target_modules='all-linear'))",
    "model = prepare_model_for_kbit_training(model)",
]
DIFF = (
    "@@ -5,3 +5,4 @@",
    f" {LINES[4]}",
    f"+{LINES[6]}",
    f" {LINES[5]}",
    f"-{LINES[6]}",
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frozen(name):
    """Return the excerpts of the adapters that a script or notebook freezes."""
    report = kbitlint.check(name, select="KB202")
    (group,) = causes(report.violations)
    return excerpts(name, group)


def test_the_lines_around_a_violation_and_what_its_fix_changes(here):
    (here / "train.py").write_text("\n".join(LINES))

    (found,) = frozen("train.py")

    assert found.lines == tuple((number, LINES[number - 1], number == 7) for number in (5, 6, 7))
    assert found.diff[:5] == DIFF


def test_a_cell_of_a_notebook_is_shown_and_not_its_json(here):
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": source} for source in (
        "\n".join(LINES[:5]),
        "\n".join(LINES[5:]),
    )]  # fmt: skip
    (here / "train.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))

    (found,) = frozen("train.ipynb")

    assert found.lines == ((1, LINES[5], False), (2, LINES[6], True))
    assert set(DIFF[1:]) <= set(found.diff)


def test_a_file_that_has_changed_meanwhile_is_not_shown(here):
    (here / "train.py").write_text("\n".join(LINES))
    report = kbitlint.check("train.py", select="KB202")
    (here / "train.py").write_text("\n" + "\n".join(LINES))

    assert excerpts("train.py", report.violations) == ()
    (here / "train.py").unlink()
    assert excerpts("train.py", report.violations) == ()


def test_a_cause_at_many_places_is_shown_at_the_first_ones(here):
    (here / "train.py").write_text("\n".join([*LINES[:5], *[LINES[5], LINES[6]] * 5]))
    report = kbitlint.check("train.py")
    most = max(causes(report.violations), key=lambda group: len({violation.at.line for violation in group}))

    assert len(excerpts("train.py", most * 10)) <= MOST


def test_the_page_has_the_lines_the_diff_the_rule_and_its_origin(here, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764115200")
    (here / "pyproject.toml").write_text("[build-system]\nname = 'no'\n\n[project]\nname = 'my-llama'\n")
    (here / "train.py").write_text("\n".join(LINES))

    page = render("html", [kbitlint.check("train.py")], fail_on=Severity.WARNING)

    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "<title>my-llama: train.py – kbitlint</title>" in page
    assert "7model = prepare_model_for_kbit_training(model)" in text
    assert "\n".join(DIFF[2:]) in text
    assert "The rule: Adapters are attached, and no parameter that the model uses requires grad." in text
    assert "https://github.com/huggingface/peft/issues/282" in text
    assert f"kbitlint {kbitlint.__version__} · 2025-11-26 · torch " in text


def test_a_folder_without_a_project_gives_its_own_name(here):
    assert origin.project() == here.name


def test_names_and_lines_of_hostile_files_are_text(here):
    (here / "train.py").write_text("\n".join([*LINES[:6], f"{LINES[6]}  # </pre><script>alert(1)</script>"]))

    page = render("html", [kbitlint.check("train.py")], fail_on=Severity.WARNING)

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_long_line_is_cut(here):
    (here / "train.py").write_text("\n".join([*LINES[:6], f"{LINES[6]}  # {'x' * 5000}"]))

    found = frozen("train.py")

    assert isinstance(found[0], Excerpt)
    assert max(len(text) for _, text, _ in found[0].lines) == 201
