from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB603"
LAYERS = [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]


def adapted(kind="nf4", **config):
    return get_peft_model(
        tiny.load(kind=kind), LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "use_dora": True, **config})
    )


def found(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def test_dora_on_4_bit_layers_is_worth_knowing_and_trains():
    model = adapted()

    assert found(model) == [(path, "info") for path in LAYERS]
    assert tiny.step(model).trains
    assert tiny.step(model).trains


def test_dora_on_8_bit_layers_on_the_cpu_raises_in_the_second_step():
    model = adapted("int8")

    assert found(model) == [(path, "error") for path in LAYERS]
    assert tiny.step(model).trains
    with pytest.raises(AttributeError, match="unsqueeze"):
        tiny.step(model)


def test_dora_on_float_layers_is_not_flagged():
    assert found(adapted(target_modules=["lm_head"])) == []


def test_plain_lora_is_not_flagged():
    assert found(adapted("int8", use_dora=False)) == []


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"
