from __future__ import annotations

import tiny
import torch
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB710"


def found(model):
    return [(v.at.path, v.message, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def test_a_layer_that_was_left_on_meta_is_flagged_and_the_step_is_no_step():
    model = tiny.load()
    model.model.norm.to("meta")

    assert found(model) == [("model.norm.weight", "parameter is on the meta device: it has no data", "error")]
    assert not tiny.step(tiny.with_lora(model)).trains


def test_adapters_on_meta_are_flagged_and_raise():
    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    layer.lora_A.to("meta")

    assert found(model) == [
        ("model.layers.0.self_attn.q_proj.lora_A.default.weight", "adapter is on the meta device: it has no data", "error")
    ]
    assert "meta" in tiny.step(model).error


def test_a_model_with_all_its_weights_is_not_flagged():
    assert found(tiny.with_lora(tiny.load())) == []


def test_a_model_without_any_weights_is_not_flagged():
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**tiny._TEXT))

    assert found(model) == []
