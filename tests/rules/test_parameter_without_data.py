from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from script_cases import IMPORTS, LOADED, PREPARED, TRAINED, findings

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


def test_a_trainable_parameter_without_elements_is_an_error_in_an_adapter():
    model = tiny.with_lora(tiny.load(), target_modules=["q_proj"])
    model.register_parameter("offset", torch.nn.Parameter(torch.empty(0)))
    assert found(model) == [("offset", "parameter has no elements: its shape is [0]", "warning")]
    assert tiny.step(model).missing == ("offset",)
    taken = model.get_base_model().model.layers[0].self_attn.q_proj.lora_B.default.weight
    model.offset.ds_id, taken.data = 0, torch.empty(0)

    path = "model.layers.0.self_attn.q_proj.lora_B.default.weight"
    assert found(model) == [(path, "adapter has no elements: its shape is [0]", "error")]
    assert tiny.step(model).error is not None


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


ATTACH = "model = get_peft_model(model, LoraConfig(r=8), low_cpu_mem_usage=True)\n"
EMPTY = "the adapters are attached on the meta device, and nothing gives them data before they train"


def test_a_script_that_trains_adapters_without_data():
    assert findings(CODE, LOADED + PREPARED + ATTACH + TRAINED) == [("error", ATTACH.strip(), EMPTY)]
    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]), low_cpu_mem_usage=True)
    assert tiny.step(model).error is not None


@pytest.mark.parametrize(
    "script",
    [
        ATTACH.replace("True", "False") + TRAINED,
        ATTACH + "model.load_adapter('saved', 'default', is_trainable=True)\n" + TRAINED,
        ATTACH + "set_peft_model_state_dict(model, state)\n" + TRAINED,
        ATTACH + "model.eval()\n",
        "model = PeftModel.from_pretrained(model, 'saved', is_trainable=True, low_cpu_mem_usage=True)\n" + TRAINED,
    ],
)
def test_adapters_that_get_data_or_do_not_train_are_fine(script):
    assert findings(CODE, LOADED + PREPARED + script, imports=IMPORTS + "from peft import set_peft_model_state_dict\n") == []
