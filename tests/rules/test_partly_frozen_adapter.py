from __future__ import annotations

import tiny
from peft import LoraConfig, VeraConfig, get_peft_model

import kbitlint

CODE = "KB632"


def adapted(**config):
    arguments = {"r": 4, "target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": False, **config}
    return get_peft_model(tiny.load(), LoraConfig(**arguments))


def found(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def keep(model, wanted):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name and wanted(name)
    return model


def test_factors_of_embeddings_that_a_loop_forgets_are_flagged_and_never_learn():
    model = keep(adapted(), lambda name: "lora_A" in name or "lora_B" in name)

    assert found(model) == [("model.embed_tokens", "warning")]
    assert not any("embed" in name for name in tiny.step(model).arrived)


def test_an_adapter_that_trains_everywhere_is_not_flagged():
    assert found(adapted()) == []
    assert found(adapted(modules_to_save=["lm_head"])) == []
    assert tiny.step(adapted()).trains


def test_one_factor_of_each_layer_may_be_frozen():
    assert found(keep(adapted(target_modules=["q_proj"]), lambda name: "lora_B" in name)) == []
    assert found(get_peft_model(tiny.load(), VeraConfig(r=4, target_modules=["o_proj"]))) == []


def test_an_adapter_that_is_frozen_as_a_whole_is_another_matter():
    model = adapted()
    model.add_adapter("second", LoraConfig(r=4, target_modules=["q_proj"]))
    assert found(model) == []

    assert found(keep(adapted(), lambda name: False)) == []
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"
