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


def test_an_encoder_that_reads_sound_may_have_adapters():
    model = tiny.with_lora(tiny.load("whisper (reads sound)"))

    assert kbitlint.check(model, select=CODE).violations == ()
    assert tiny.step(model).trains


def test_the_proposed_pattern_leaves_out_the_tower_alone():
    import re

    model = tiny.with_lora(tiny.load("llava (vision-language)"))
    (violation,) = kbitlint.check(model, select=CODE).violations
    pattern = re.search(r'r"(.*?)"', violation.fix.title).group(1)
    paths = [name for name, _ in tiny.adapters_base(model).named_modules()]

    assert {name for name in paths if re.fullmatch(pattern, name)} == {
        name for name in paths if name.startswith("model.vision_tower.")
    }
