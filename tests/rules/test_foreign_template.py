from __future__ import annotations

import pytest

import kbitlint

FACTORY = """\
model_name_or_path: {}
stage: sft
finetuning_type: lora
quantization_bit: 4
template: {}
dataset: alpaca_en_demo
bf16: true
output_dir: out
"""


def said(text, name, tmp_path):
    (tmp_path / name).write_text(text)
    return [(v.severity.value, v.at.line, v.message) for v in kbitlint.check(tmp_path / name, select="KB734").violations]


@pytest.mark.parametrize(
    ("model", "template", "message"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "llama2", "llama2 writes the turns of Mistral, and {} was trained on those of ChatML"),
        ("meta-llama/Llama-3.1-8B-Instruct", "qwen", "qwen writes the turns of ChatML, and {} was trained on those of Llama 3"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen", ""),
        ("meta-llama/Llama-3.1-8B", "llama2", ""),
        ("org/own", "llama2", ""),
    ],
)
def test_a_chat_model_is_held_against_its_template(model, template, message, tmp_path):
    expected = [("warning", 5, message.format(model))] if message else []

    assert said(FACTORY.format(model, template), "train.yaml", tmp_path) == expected
