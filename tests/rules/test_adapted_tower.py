from __future__ import annotations

import tiny
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB605"


def adapted(targets):
    return get_peft_model(tiny.load("llava (vision-language)"), LoraConfig(r=4, target_modules=targets))


def found(model):
    return [(v.at.path, v.severity.value, v.evidence["layers"]) for v in kbitlint.check(model, select=CODE).violations]


def test_all_linear_and_shared_names_reach_the_tower_and_text_trains_none_of_it():
    model = adapted(["q_proj"])

    assert found(adapted("all-linear")) == [("model.vision_tower", "info", 12)]
    assert found(model) == [("model.vision_tower", "info", 2)]
    tokens = tiny.torch.arange(10, 18)[None]
    model.train()(input_ids=tokens, labels=tokens).loss.backward()
    idle = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert len(idle) == 4
    assert all("vision_tower" in name for name in idle)


def test_a_pattern_for_the_language_model_leaves_the_tower_alone():
    assert found(adapted(r".*language_model.*q_proj")) == []


def test_models_without_a_tower_are_not_flagged():
    assert kbitlint.check(tiny.with_lora(tiny.load()), select=CODE).violations == ()


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load("llava (vision-language)"), select=CODE).skips[0].reason == "no adapters are attached yet"
