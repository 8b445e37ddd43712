from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import ADAPTED, IMPORTS, LOADED, RECIPE, findings, flagged_lines

MERGE = "merged = model.merge_and_unload()\n"


def test_a_merge_into_4_bits_rounds_the_adapter_away():
    assert findings("KB621", RECIPE + MERGE) == [
        ("warning", MERGE.strip(), "the adapters are merged into 4-bit weights, whose rounding swallows much of them")
    ]


def test_other_methods_are_packed_too():
    script = LOADED.replace("BitsAndBytesConfig(load_in_4bit=True", "GPTQConfig(bits=4") + ADAPTED + MERGE

    assert flagged_lines("KB621", script, imports=IMPORTS + "from transformers import GPTQConfig\n") == [
        ("warning", MERGE.strip())
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + ADAPTED + MERGE, id="float base"),
        pytest.param("model = PeftModel.from_pretrained(base, 'adapter')\n" + MERGE, id="unknown base"),
        pytest.param(LOADED + "model.dequantize()\n" + ADAPTED + MERGE, id="dequantized in place"),
        pytest.param(LOADED + "model = model.dequantize()\n" + ADAPTED + MERGE, id="dequantized"),
        pytest.param(
            RECIPE + "del model\nmodel = AutoModelForCausalLM.from_pretrained('org/base')\n" + ADAPTED + MERGE, id="reloaded"
        ),
    ],
)
def test_look_alikes(script):
    assert findings("KB621", script) == []


PREFIXES = "PrefixTuningConfig(task_type='CAUSAL_LM', num_virtual_tokens=8)"


def test_virtual_tokens_have_nothing_to_merge():
    script = LOADED + f"model = get_peft_model(model, {PREFIXES})\n" + MERGE
    message = "PrefixTuningConfig adds no weights to a layer that could be merged: an AttributeError, and nothing is merged"

    assert findings("KB621", script) == [("error", MERGE.strip(), message)]
    model = peft.get_peft_model(tiny.load(), peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=8))
    with pytest.raises(AttributeError):
        model.merge_and_unload()


def test_the_name_of_the_base_model_has_no_adapters():
    script = LOADED + "trainer = SFTTrainer(model, args=SFTConfig('o'), peft_config=LoraConfig(r=8))\ntrainer.train()\n" + MERGE
    message = (
        "the name still holds the base model, and only trainer.model holds the adapters: an AttributeError, "
        "and nothing is merged"
    )

    assert findings("KB621", script) == [("error", MERGE.strip(), message)]
    assert flagged_lines("KB621", script.replace("model.merge", "trainer.model.merge")) == [
        ("warning", MERGE.strip().replace("model.merge", "trainer.model.merge"))
    ]
