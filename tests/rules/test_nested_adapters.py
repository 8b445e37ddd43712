from __future__ import annotations

import tiny
from peft import LoraConfig, get_peft_model
from script_cases import ADAPTED, LOADED, findings

import kbitlint

CODE = "KB631"
CONFIG = {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False}


def found(model):
    return [(v.at.path, v.severity.value, v.evidence["levels"]) for v in kbitlint.check(model, select=CODE).violations]


def test_adapters_around_adapters_are_an_error_and_some_never_learn():
    model = get_peft_model(get_peft_model(tiny.load(), LoraConfig(**CONFIG)), LoraConfig(**CONFIG), adapter_name="second")

    assert found(model) == [("", "error", 2)]
    assert tiny.step(model).missing


def test_adapters_around_those_of_transformers_are_an_error():
    model = tiny.load()
    model.add_adapter(LoraConfig(**CONFIG))
    assert found(model) == []

    assert found(get_peft_model(model, LoraConfig(**{**CONFIG, "target_modules": ["k_proj"]}), adapter_name="b")) == [
        ("", "error", 2)
    ]


def test_a_second_adapter_beside_the_first_is_not_flagged():
    model = get_peft_model(tiny.load(), LoraConfig(**CONFIG))
    model.add_adapter("second", LoraConfig(**CONFIG))
    model.set_adapter("second")

    assert found(model) == []
    assert tiny.step(model).arrived


def test_unloaded_adapters_leave_no_level_behind():
    model = get_peft_model(tiny.load(), LoraConfig(**CONFIG)).unload()

    assert found(get_peft_model(model, LoraConfig(**CONFIG))) == []
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"


def test_a_script_that_attaches_twice_is_flagged_at_the_second_call():
    second = "model = get_peft_model(model, LoraConfig(r=16))\n"
    (one,) = findings(CODE, LOADED + ADAPTED + second)
    assert one[:2] == ("error", second.strip())

    assert findings(CODE, LOADED + ADAPTED) == []
    assert findings(CODE, LOADED + ADAPTED + "model = model.merge_and_unload()\n" + second) == []
    assert findings(CODE, LOADED + "if flag:\n    " + ADAPTED + second) == []
