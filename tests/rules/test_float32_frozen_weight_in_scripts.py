"""The source fix of KB104: kbitlint's own preparation in place of PEFT's, and the step of the script that it leaves."""

from __future__ import annotations

import pytest
import tiny
from script_cases import findings, fixed_text

import kbitlint

LOAD = (
    "model = AutoModelForCausalLM.from_pretrained('meta-llama/Meta-Llama-3-8B',"
    " quantization_config=BitsAndBytesConfig(load_in_4bit=True))\n"
)
ATTACH = "model = get_peft_model(model, LoraConfig(target_modules='all-linear'))\n"
PREPARE = "model = prepare_model_for_kbit_training(model)\n"


def fixed(body, tmp_path):
    return fixed_text("KB104", body, tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        PREPARE,
        "model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=True)\n",
        "model = prepare_model_for_kbit_training(model, True)  # as in the tutorial\n",
        "model = prepare_model_for_kbit_training(\n    model, gradient_checkpointing_kwargs={'use_reentrant': False},\n)\n",
    ],
)
def test_the_call_becomes_one_of_kbitlint(tmp_path, call):
    text = fixed(LOAD + call + ATTACH, tmp_path)

    assert "\nkbitlint.fix(model)" in text
    assert "import kbitlint\n" in text
    assert "prepare_model_for_kbit_training(" not in text
    compile(text, "fixed.py", "exec")


@pytest.mark.parametrize(
    "call",
    [
        "model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)\n",
        "prepared = prepare_model_for_kbit_training(model)\nmodel = prepared\n",
        "model = (prepare_model_for_kbit_training(model))\n",
        "model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs=settings)\n",
    ],
)
def test_another_form_is_left_to_people(tmp_path, call):
    body = "settings = {}\n" + LOAD + call + ATTACH

    assert [severity for severity, *_ in findings("KB104", body)] == ["warning"]
    assert "kbitlint.fix" not in fixed(body, tmp_path)


def test_after_adapters_the_order_is_the_fault_and_not_the_cast(tmp_path):
    assert "kbitlint.fix" not in fixed(LOAD + ATTACH + PREPARE, tmp_path)


def test_what_is_put_in_its_place_trains_in_half_precision():
    model = tiny.load()
    kbitlint.fix(model)
    model = tiny.with_lora(model)

    assert {str(p.dtype) for n, p in model.named_parameters() if n.endswith(("embed_tokens.weight", "lm_head.weight"))} == {
        "torch.bfloat16"
    }
    assert tiny.step(model).trains
