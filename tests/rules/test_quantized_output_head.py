from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, get_peft_model

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


#: transformers 5 packs it by default; 4 leaves the last module of every model alone, unless a list takes its place
PACKED = {} if tiny.TRANSFORMERS_5 else {"llm_int8_skip_modules": ["k_proj"]}


def test_transformers_4_leaves_the_head_of_a_task_alone_by_default():
    assert bool(found(tiny.load("bert (classifier)"))) is tiny.TRANSFORMERS_5


def test_a_packed_head_of_a_task_cannot_be_trained_by_peft():
    model = tiny.load("bert (classifier)", **PACKED)

    assert found(model) == [("classifier", "head of the task is packed as nf4: no copy of it can be trained", "warning")]
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        get_peft_model(model, LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS"))


def test_lora_on_the_head_of_a_task_trains_it():
    model = tiny.with_lora(tiny.load("bert (classifier)", **PACKED), target_modules=["query", "classifier"])

    assert [severity for _, _, severity in found(model)] == ["info"]
    assert any("classifier" in name for name in tiny.step(model).arrived)


def test_a_head_of_a_task_in_floats_is_not_flagged():
    assert found(tiny.load("bert (classifier)", llm_int8_skip_modules=["classifier"])) == []


def test_unquantized_models_are_skipped():
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"
