from __future__ import annotations

import pytest
import tiny
import torch
from peft.utils import cast_mixed_precision_params
from script_cases import ADAPTED, IMPORTS, LOADED, PREPARED, findings

PEFT = "from peft import cast_mixed_precision_params\n"


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


CAST = "cast_mixed_precision_params(model, dtype=torch.bfloat16)\n"


def test_peft_s_cast_of_every_parameter_destroys_packed_weights():
    script = LOADED + PREPARED + ADAPTED + CAST
    message = "the cast reaches the packed weights, too, whose bytes are then read as numbers"

    assert findings("KB122", script, imports=IMPORTS + PEFT) == [("error", CAST.strip(), message)]
    model = tiny.with_lora(tiny.load())
    assert tiny.step(model).error is None
    cast_mixed_precision_params(model, torch.bfloat16)
    assert "invalid for input of size" in tiny.step(model).error


def test_peft_s_cast_of_a_model_that_is_not_packed_is_fine():
    loaded = "model = AutoModelForCausalLM.from_pretrained('m')\n"

    assert findings("KB122", loaded + ADAPTED + CAST, imports=IMPORTS + PEFT) == []


def test_a_copy_of_a_model_is_as_packed_as_the_model():
    script = LOADED + "import copy\nother = copy.deepcopy(model)\nother.half()\n"

    assert [severity for severity, *_ in findings("KB122", script)] == ["error"]
    assert findings("KB122", LOADED + "import copy\nother = copy.deepcopy(model)\nother.requires_grad_(False)\n") == []
