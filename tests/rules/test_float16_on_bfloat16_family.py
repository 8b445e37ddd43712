from __future__ import annotations

import json

import pytest
from script_cases import IMPORTS, findings, fixed_text, flagged_lines

GEMMA = """
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)
model = AutoModelForCausalLM.from_pretrained("google/gemma-2-9b", quantization_config=bnb)
"""


def test_gemma_in_float16_overflows():
    assert findings("KB121", GEMMA) == [
        (
            "warning",
            GEMMA.split("\n")[1],
            "google/gemma-2-9b computes in float16, whose range its activations leave",
        )
    ]


def test_the_dtype_of_the_load_counts_too():
    load = "model = AutoModelForCausalLM.from_pretrained('google/flan-t5-xl', torch_dtype='float16')"

    assert flagged_lines("KB121", load) == [("warning", load)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(GEMMA.replace("float16", "bfloat16"), id="bfloat16"),
        pytest.param(GEMMA.replace("google/gemma-2-9b", "openlm-research/open_llama_7b"), id="another family"),
        pytest.param(GEMMA.replace('"google/gemma-2-9b"', "name"), id="unknown checkpoint"),
        pytest.param(GEMMA.replace("gemma-2-9b", "bigemma"), id="a name that only sounds like it"),
    ],
)
def test_look_alikes(script):
    assert findings("KB121", script) == []


def test_the_fix_uses_bfloat16(tmp_path):
    assert fixed_text("KB121", GEMMA, tmp_path) == GEMMA.replace("torch.float16", "torch.bfloat16")


def test_a_dtype_that_is_computed_is_shown_only(tmp_path):
    script = "half = torch.float16\nmodel = AutoModelForCausalLM.from_pretrained('google/gemma-2-9b', dtype=half)\n"

    assert flagged_lines("KB121", script) == [("warning", script.split("\n")[1])]
    assert fixed_text("KB121", script, tmp_path) == script


HALF = "TrainingArguments('o', fp16=True)"
TRAINED = (
    GEMMA.replace("float16", "bfloat16")
    + "model = get_peft_model(model, LoraConfig(r=8))\n"
    + f"Trainer(model=model, args={HALF}, train_dataset=data).train()\n"
)


def test_mixed_precision_in_float16_overflows_too(tmp_path):
    line = TRAINED.splitlines()[-1]

    assert flagged_lines("KB121", TRAINED) == [("warning", line)]
    assert fixed_text("KB121", TRAINED, tmp_path) == TRAINED.replace("fp16=True", "bf16=True")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(TRAINED.replace("fp16=True", "bf16=True"), id="bfloat16"),
        pytest.param(TRAINED.replace("google/gemma-2-9b", "openlm-research/open_llama_7b"), id="another family"),
        pytest.param(GEMMA + "model.generate(**batch)\n", id="the model only generates"),
    ],
)
def test_look_alikes_in_mixed_precision(script):
    assert findings("KB121", script) == []


MISTRAL = GEMMA.replace("google/gemma-2-9b", "mistralai/Mistral-7B-v0.1").replace("bnb)", "bnb, dtype=torch.float16)")
HALVES = MISTRAL + "model = get_peft_model(model, LoraConfig(r=8))\n" + TRAINED.splitlines()[-1] + "\n"


def test_the_arguments_of_one_model_are_one_violation(tmp_path):
    (one,) = findings("KB121", HALVES)

    assert one[:2] == ("warning", HALVES.split("\n")[1])
    assert one[2].endswith("whose range is wider (bnb_4bit_compute_dtype, dtype, fp16)")
    wanted = HALVES.replace("torch.float16", "torch.bfloat16").replace("fp16", "bf16")
    assert fixed_text("KB121", HALVES, tmp_path) == wanted


@pytest.mark.parametrize(
    ("script", "severity"),
    [
        pytest.param("# for the free T4\n" + HALVES, "info", id="a card without bfloat16"),
        pytest.param("# V100, 32 GB\n" + HALVES, "info", id="another"),
        pytest.param("# GTX 1650 safe\n" + HALVES, "info", id="a card of Turing without tensor cores"),
        pytest.param("# 2 GPUs of Kaggle\n" + HALVES, "info", id="a place that lends such cards"),
        pytest.param("# for the free T4, or an A100\n" + HALVES, "warning", id="a card with bfloat16, too"),
        pytest.param("# T4\n" + GEMMA, "warning", id="a family that overflows"),
        pytest.param("name = 'T45'\n" + HALVES, "warning", id="another word"),
    ],
)
def test_a_card_without_bfloat16_leaves_no_choice(script, severity, tmp_path):
    assert [found for found, _, _ in findings("KB121", script)] == [severity]
    if severity == "info":
        assert fixed_text("KB121", script, tmp_path) == script


@pytest.mark.parametrize(
    ("cells", "metadata"),
    [([{"cell_type": "markdown", "source": "## Runs on a T4"}], {}), ([], {"colab": {"gpuType": "T4"}})],
)
def test_a_notebook_names_its_card_in_words_or_metadata(cells, metadata):
    def severities(cells, metadata):
        code = {"cell_type": "code", "source": IMPORTS + HALVES}
        text = (
            json.dumps({"cells": [*cells, code], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=0)
            + "\n" * 20
        )
        return [found for found, _, _ in findings("KB121", text, suffix=".ipynb")]

    assert severities(cells, metadata) == ["info"]
    assert severities([], {}) == ["warning"]


SWITCH = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--bf16", action="{}", default={})
given = parser.parse_args()
kind = torch.bfloat16 if given.bf16 else torch.float16
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=kind)
model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B", quantization_config=bnb)
model = prepare_model_for_kbit_training(model)
"""


@pytest.mark.parametrize(
    ("action", "default", "lines"),
    [("store_true", True, 0), ("store_true", False, 1), ("store_false", False, 1), ("store_false", True, 1)],
)
def test_a_switch_that_has_the_value_which_it_sets_is_no_choice(action, default, lines):
    assert len(findings("KB121", SWITCH.format(action, default))) == lines
