from __future__ import annotations

import tiny

import kbitlint

CODE = "KB505"


def found(model):
    return [(v.at.path, v.message, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def test_a_list_of_modules_to_skip_clears_the_default_and_the_head_is_packed():
    model = tiny.load(llm_int8_skip_modules=["k_proj"])

    assert found(model) == [("lm_head", "output head is packed as nf4: its rounding goes into the logits", "info")]
    assert tiny.step(tiny.with_lora(model)).trains


def test_the_head_is_found_below_an_adapter():
    model = tiny.with_lora(tiny.load(llm_int8_skip_modules=["k_proj"]), target_modules=["lm_head"])

    assert [path for path, _, _ in found(model)] == ["lm_head"]


def test_the_default_and_a_list_that_names_the_head_leave_it_alone():
    assert found(tiny.load()) == []
    assert found(tiny.load(llm_int8_skip_modules=["k_proj", "lm_head"])) == []


def test_the_head_of_a_task_is_not_an_output_embedding():
    assert found(tiny.load("llama (classifier)", llm_int8_skip_modules=["k_proj"])) == []


def test_unquantized_models_are_skipped():
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"
