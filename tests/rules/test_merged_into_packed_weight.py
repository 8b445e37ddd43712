from __future__ import annotations

import tiny
import torch
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB604"
LAYERS = [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]


def adapted(kind="nf4"):
    torch.manual_seed(0)
    model = get_peft_model(tiny.load(kind=kind), LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.002)
    return model


def found(model):
    return [(v.at.path, v.message, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def weight(model):
    from bitsandbytes.functional import dequantize_4bit

    packed = model.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight
    return dequantize_4bit(packed.data, packed.quant_state).float()


def test_a_merged_adapter_is_flagged_and_the_weight_is_not_what_it_should_be():
    model = adapted()
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    before, update = weight(model), layer.get_delta_weight("default").float()

    model.merge_adapter()

    message = "adapter is merged into a weight that was rounded to nf4 again"
    assert found(model) == [(path, message, "error") for path in LAYERS]
    assert (weight(model) - before - update).abs().mean() > 0.5 * update.abs().mean()
    assert tiny.step(model).error is not None, "it learns nothing"


def test_unmerging_removes_the_violation_but_does_not_bring_the_weight_back():
    model = adapted()
    before = weight(model)

    model.merge_adapter()
    model.unmerge_adapter()

    assert found(model) == []
    assert not torch.equal(weight(model), before)


def test_some_merged_layers_are_flagged_alone():
    model = adapted()
    model.get_base_model().model.layers[1].self_attn.q_proj.merge()

    assert [path for path, _, _ in found(model)] == LAYERS[1:]


def test_merging_into_float_weights_and_not_merging_are_not_flagged():
    model = adapted("none")
    model.merge_adapter()

    assert found(model) == found(adapted()) == []


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"
