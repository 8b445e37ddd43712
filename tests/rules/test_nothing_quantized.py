from __future__ import annotations

import tiny

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
