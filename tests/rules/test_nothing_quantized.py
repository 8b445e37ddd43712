from __future__ import annotations

import pytest
import tiny
from script_cases import ADAPTED, LOADED, TRAINED, findings

import kbitlint

CODE = "KB501"


def found(model):
    return [(v.at.path, v.message, v.evidence["recorded_method"]) for v in kbitlint.check(model, select=CODE).violations]


def test_a_model_in_sixteen_bits_is_flagged():
    assert found(tiny.load(kind="none")) == [("", "no layer is quantized", None)]


def test_a_record_of_quantization_does_not_hide_float_tensors():
    model = tiny.load(kind="none")
    model.is_loaded_in_4bit = True

    assert found(model) == [("", "no layer is quantized, although the model is recorded as bitsandbytes", "bitsandbytes")]


def test_eight_bit_layers_that_keep_float_weights_are_not_quantized():
    model = tiny.load(kind="int8", llm_int8_has_fp16_weight=True)

    assert [message for _, message, _ in found(model)] == [
        "no layer is quantized, although the model is recorded as bitsandbytes"
    ]


def test_quantized_models_are_not_flagged():
    assert found(tiny.load()) == []
    assert found(tiny.load(kind="int8")) == []
    assert found(tiny.with_lora(tiny.load())) == []


FORGOTTEN = LOADED.replace("quantization_config=bnb, ", "") + ADAPTED + TRAINED


def test_a_script_that_makes_a_config_and_forgets_it():
    assert findings(CODE, FORGOTTEN) == [
        ("warning", FORGOTTEN.split("\n")[0], "bnb is made and never used: the model loads without it")
    ]
    assert len(findings(CODE, FORGOTTEN + "# quantization_config=bnb\n")) == 1


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + ADAPTED + TRAINED, id="used"),
        pytest.param(FORGOTTEN + "other = load(quantization_config=bnb)\n", id="used for something else"),
        pytest.param(
            FORGOTTEN.replace("bnb = ", "register(").replace("bfloat16)\nmodel", "bfloat16))\nmodel", 1), id="handed on"
        ),
    ],
)
def test_scripts_that_look_alike(script):
    assert findings(CODE, script) == []
