"""A model that a script saves whole and loads again is what it was: quantized, and of the same type."""

from __future__ import annotations

import pytest
from script_cases import LOADED, LOOP, PREPARED, findings

LLAMA = LOADED.replace("org/base", "bigcode/starcoder2-3b")
SAVED = "model.save_pretrained({!r})\n"
AGAIN = "model = AutoModelForCausalLM.from_pretrained({}, device_map={{'': 0}})\n"
PISSA = "model = get_peft_model(model, LoraConfig(init_lora_weights='pissa', target_modules=['q_proj']))\n"
TYPED = "import peft\nmodel = get_peft_model(model, peft.LNTuningConfig())\n"


def codes(body):
    return [code for code in ("KB620", "KB535") if findings(code, body + LOOP)]


@pytest.mark.parametrize(("attached", "code"), [(PISSA, "KB620"), (TYPED, "KB535")])
def test_what_holds_for_a_model_holds_for_the_one_loaded_from_its_folder(attached, code):
    assert codes(LLAMA + SAVED.format("packed") + AGAIN.format("'packed'") + attached) == [code]
    assert codes(LLAMA + "folder = 'packed'\n" + SAVED.format("packed") + AGAIN.format("folder") + PREPARED + attached) == [
        code
    ]


@pytest.mark.parametrize(
    "body",
    [
        LLAMA + SAVED.format("packed") + AGAIN.format("'other'"),
        LLAMA
        + "model = get_peft_model(model, LoraConfig(target_modules=['q_proj']))\n"
        + SAVED.format("packed")
        + AGAIN.format("'packed'"),
        LLAMA.replace(", quantization_config=bnb", "") + SAVED.format("whole") + AGAIN.format("'whole'"),
        AGAIN.format("'packed'"),
    ],
    ids=["another folder", "adapters", "not quantized", "not saved here"],
)
def test_folders_that_hold_something_else_or_are_not_known_tell_nothing(body):
    assert codes(body + PISSA) == []
