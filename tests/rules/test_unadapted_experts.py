from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB602"
EXPERTS = [f"model.layers.{i}.mlp.experts.{name}" for i in (0, 1) for name in ("down_proj", "gate_up_proj")]


def adapted(**config):
    return get_peft_model(tiny.load("mixtral (MoE)"), LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **config}))


def found(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_names_of_modules_leave_experts_out():
    model = adapted()

    assert found(model) == [(path, "info") for path in EXPERTS]
    assert not any("experts" in name for name in tiny.step(model).arrived)


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_experts_with_an_adapter_are_not_flagged_and_learn():
    model = adapted(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])

    assert found(model) == []
    assert any("experts" in name for name in tiny.step(model).arrived)


def test_stacked_experts_are_left_out_in_every_version():
    model = get_peft_model(
        tiny.load("gpt_oss (experts stacked by every version)"), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    )

    assert found(model) == [(path, "info") for path in EXPERTS]
    assert not any("experts" in name for name in tiny.step(model).arrived)


def test_all_linear_is_converted_by_peft_and_not_flagged():
    model = adapted(target_modules="all-linear")

    assert found(model) == []
    assert any("experts" in name for name in tiny.step(model).arrived)


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_experts_that_train_themselves_are_not_flagged():
    model = adapted()
    for name, parameter in model.named_parameters():
        if "experts" in name:
            parameter.requires_grad_(True)

    assert found(model) == []


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load("mixtral (MoE)"), select=CODE).skips[0].reason == "no adapters are attached yet"
