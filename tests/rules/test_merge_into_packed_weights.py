from __future__ import annotations

import pytest
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
