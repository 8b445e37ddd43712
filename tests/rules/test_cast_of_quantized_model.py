from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings


@pytest.mark.parametrize("cast", ["half()", "float()", "to(torch.float16)", "to('cuda', dtype=torch.float32)"])
def test_a_quantized_model_refuses_to_be_cast(cast):
    (found,) = findings("KB122", LOADED + f"model.{cast}\n")

    assert found[:2] == ("error", f"model.{cast}")
    assert found[2].startswith("a quantized model cannot be cast to float")


def test_the_peft_model_around_it_passes_the_cast_on():
    assert findings("KB122", LOADED + PREPARED + ADAPTED + "model = model.half()\n") == [
        ("warning", "model = model.half()", "the cast to float16 goes through to the adapters and norms")
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + "model.to('cuda')\n", id="moved, not cast"),
        pytest.param(LOADED + "model.bfloat16()\n", id="bfloat16 has no guard"),
        pytest.param(LOADED + PREPARED + ADAPTED + "model.float()\n", id="float32 adapters stay"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\nmodel.half()\n", id="not quantized"),
        pytest.param("model.half()\n", id="unknown model"),
        pytest.param(LOADED + "if late:\n    model = get_peft_model(model, LoraConfig())\nmodel.half()\n", id="either"),
    ],
)
def test_look_alikes(script):
    assert findings("KB122", script) == []
