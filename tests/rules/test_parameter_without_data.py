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


def offloaded(tmp_path, layers):
    """Layer 1 on the disk, from where accelerate brings it for each call, and adapters on these layers."""
    from transformers import LlamaForCausalLM

    names = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head")
    model = LlamaForCausalLM.from_pretrained(
        tiny.checkpoint(),
        device_map={**dict.fromkeys(names, "cpu"), "model.layers.1": "disk"},
        offload_folder=tmp_path,
        dtype=torch.bfloat16,
    )
    return get_peft_model(model, LoraConfig(r=4, target_modules=rf".*layers\.({layers}).*q_proj", init_lora_weights=False))


def test_frozen_weights_on_the_disk_are_brought_and_train_through(tmp_path):
    model = offloaded(tmp_path, "0")

    assert found(model) == []
    assert tiny.step(model).trains


def test_adapters_on_weights_on_the_disk_have_no_data_and_raise(tmp_path):
    model = offloaded(tmp_path, "0|1")

    assert [path for path, _, _ in found(model)] == [
        f"model.layers.1.self_attn.q_proj.lora_{factor}.default.weight" for factor in "AB"
    ]
    assert "meta" in tiny.step(model).error


def test_a_model_with_all_its_weights_is_not_flagged():
    assert found(tiny.with_lora(tiny.load())) == []


def test_a_model_without_any_weights_is_not_flagged():
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**tiny._TEXT))

    assert found(model) == []


def test_a_model_built_without_weights_is_clean_although_its_class_makes_some_tensors_elsewhere():
    """DiffLlama and XLNet make a few parameters with calls that no device context reaches."""
    from transformers import LlamaForCausalLM

    from kbitlint.model.build.meta import instantiate

    config = tiny.FAMILIES["llama"][1]()
    model = instantiate(LlamaForCausalLM, config, tiny.quantization(), torch.bfloat16)
    model.model.register_parameter("made_elsewhere", torch.nn.Parameter(torch.randn(4), requires_grad=False))

    assert found(model) == []
