"""KB653: unsloth that is imported after the packages that it patches."""

from __future__ import annotations

import json

import pytest
from script_cases import findings, fixed_text

LOADS = "model, tok = FastLanguageModel.from_pretrained('unsloth/Qwen2.5-7B', load_in_4bit=True)\n"
UNSLOTH = "from unsloth import FastLanguageModel\n"


def found(body, **how):
    return findings("KB653", body, imports="", **how)


def late(*names):
    return [("warning", UNSLOTH.strip(), f"unsloth is imported after {' and '.join(names)}, whose functions it replaces")]


@pytest.mark.parametrize(
    ("before", "names"),
    [
        ("import torch\nfrom trl import SFTTrainer\n", ["trl"]),
        ("import os, transformers\n", ["transformers"]),
        ("from peft import PeftModel\nfrom transformers import set_seed\n", ["transformers", "peft"]),
        ("from transformers.utils import logging\nif True:\n    import unsloth_zoo\n", ["transformers"]),
    ],
)
def test_a_package_that_unsloth_patches_comes_first(before, names):
    assert found(before + UNSLOTH + LOADS) == late(*names)


@pytest.mark.parametrize(
    "script",
    [
        UNSLOTH + "from trl import SFTTrainer\n" + LOADS,
        "import unsloth\nfrom trl import SFTTrainer\n" + UNSLOTH + LOADS,
        "import torch, datasets, bitsandbytes\n" + UNSLOTH + LOADS,
        "try:\n    import unsloth\nexcept ImportError:\n    pass\nfrom trl import SFTTrainer\n" + UNSLOTH + LOADS,
        "def other():\n    from trl import SFTTrainer\n" + UNSLOTH + LOADS,
        "# from trl import SFTTrainer\n" + UNSLOTH + LOADS,
        '"""Once:\nfrom trl import SFTTrainer\n"""\n' + UNSLOTH + LOADS,
        (
            "from trl import SFTTrainer\nfrom transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
            "model = AutoModelForCausalLM.from_pretrained('m', quantization_config=BitsAndBytesConfig(load_in_4bit=True))\n"
        ),
    ],
)
def test_unsloth_first_or_without_an_order_is_clean(script):
    assert found(script) == []


def test_the_fix_imports_unsloth_first(tmp_path):
    script = '"""Tune.\nfrom trl import this\n"""\nimport torch\nfrom trl import SFTTrainer\n' + UNSLOTH + LOADS

    fixed = fixed_text("KB653", script, tmp_path, imports="")

    assert fixed == script.replace("from trl import SFTTrainer", "import unsloth\nfrom trl import SFTTrainer")


def test_the_cells_of_a_notebook_have_an_order(tmp_path):
    def notebook(*cells):
        return json.dumps(
            {"cells": [{"cell_type": "code", "source": cell} for cell in cells], "nbformat": 4, "nbformat_minor": 5}
        )

    cells = "%pip install unsloth\nfrom trl import SFTTrainer", UNSLOTH, LOADS

    (one,) = found(notebook(*cells), suffix=".ipynb")
    assert one[2] == late("trl")[0][2]
    assert found(notebook(cells[1], cells[0], cells[2]), suffix=".ipynb") == []
    assert json.loads(fixed_text("KB653", notebook(*cells), tmp_path, suffix=".ipynb"))["cells"][0]["source"] == (
        "%pip install unsloth\nimport unsloth\nfrom trl import SFTTrainer"
    )
