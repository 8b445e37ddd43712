from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

import kbitlint

CODE = "KB308"
LAYERS = ["model.layers.0", "model.layers.1"]


def trained(*, dropout, **kwargs):
    model = tiny.load()
    prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False, **kwargs})
    config = LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=dropout, init_lora_weights=False)
    torch.manual_seed(0)
    return get_peft_model(model, config)


def found(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def gradients(model):
    assert tiny.step(model).trains
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def cosine(first, second):
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


def test_another_mask_is_an_error_and_turns_the_gradients():
    model = trained(dropout=0.3, preserve_rng_state=False)

    assert found(model) == [(path, "error") for path in LAYERS]
    assert cosine(gradients(model), gradients(trained(dropout=0.3))) < 0.99


@pytest.mark.parametrize(
    ("dropout", "kwargs"), [(0.3, {}), (0.3, {"preserve_rng_state": True}), (0.0, {"preserve_rng_state": False})]
)
def test_a_preserved_state_or_no_dropout_is_no_fault(dropout, kwargs):
    model = trained(dropout=dropout, **kwargs)

    assert found(model) == []
    assert cosine(gradients(model), gradients(trained(dropout=dropout))) > 0.999


SCRIPT = """
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("a/b", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(lora_dropout={dropout}))
arguments = TrainingArguments("out", gradient_checkpointing=True, gradient_checkpointing_kwargs={kwargs})
Trainer(model=model, args=arguments).train()
"""


@pytest.mark.parametrize(
    ("dropout", "kwargs", "lines"),
    [
        (0.1, {"use_reentrant": False, "preserve_rng_state": False}, 1),
        (0.0, {"use_reentrant": False, "preserve_rng_state": False}, 0),
        (0.1, {"use_reentrant": False}, 0),
    ],
)
def test_a_script_is_read(tmp_path, dropout, kwargs, lines):
    file = tmp_path / "train.py"
    file.write_text(SCRIPT.format(dropout=dropout, kwargs=kwargs))

    assert len(kbitlint.check(file, select=CODE).violations) == lines
