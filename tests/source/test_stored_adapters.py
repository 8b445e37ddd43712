"""Folders of adapters that a script loads as a model: transformers and unsloth load the base and the adapters."""

from __future__ import annotations

import json

import pytest
import tiny
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import kbitlint

HEAD = """\
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments
from unsloth import FastLanguageModel
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
"""
PLAIN = 'model = AutoModelForCausalLM.from_pretrained("out/checkpoint-5", quantization_config=bnb)\n'
TRAINED = 'Trainer(model, TrainingArguments("o", bf16=True), train_dataset=data).train()\n'
UNSLOTH = 'model, tokenizer = FastLanguageModel.from_pretrained("out/checkpoint-5", load_in_4bit=True)\n'
AGAIN = "model = FastLanguageModel.get_peft_model(model, r={}, lora_alpha=16, lora_dropout=0, bias='none')\n"
STORED = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0, "bias": "none", "target_modules": ["q_proj"]}


def found(folder, code, script, *, stored=True):
    (folder / "out" / "checkpoint-5").mkdir(parents=True)
    if stored:
        config = {**STORED, "base_model_name_or_path": "unsloth/llama-3-8b-bnb-4bit"}
        (folder / "out" / "checkpoint-5" / "adapter_config.json").write_text(json.dumps(config))
    path = folder / "train.py"
    path.write_text(HEAD + script)
    lines = path.read_text().splitlines()
    return [(v.severity.value, lines[v.at.line - 1]) for v in kbitlint.check(str(path), select=code).violations]


def test_transformers_loads_adapters_frozen(tmp_path):
    assert found(tmp_path, "KB202", PLAIN + TRAINED) == [("error", PLAIN.strip())]
    assert kbitlint.check(str(tmp_path / "train.py"), select="KB220").violations == ()


@pytest.mark.parametrize("code", ["KB202", "KB535"])
def test_a_folder_without_adapters_tells_nothing(tmp_path, code):
    assert found(tmp_path, code, PLAIN + TRAINED, stored=False) == []


def test_real_adapters_of_a_folder_are_frozen(tmp_path):
    get_peft_model(tiny.load(kind="none"), LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)

    adapters = [parameter for name, parameter in model.named_parameters() if "lora_" in name]
    assert adapters
    assert not any(parameter.requires_grad for parameter in adapters)


@pytest.mark.parametrize(("rank", "lines"), [(16, 1), (8, 0)])
def test_unsloth_refuses_other_parameters_than_the_stored_ones(tmp_path, rank, lines):
    script = UNSLOTH + AGAIN.format(rank)

    assert [severity for severity, _ in found(tmp_path, "KB535", script)] == ["error"] * lines


def test_the_base_of_an_adapter_tells_the_bits(tmp_path):
    script = "from peft import AutoPeftModelForCausalLM\nmodel = AutoPeftModelForCausalLM.from_pretrained('out/checkpoint-5')\n"
    merge = "merged = model.merge_and_unload()\n"

    assert found(tmp_path, "KB621", script + merge) == [("warning", merge.strip())]
