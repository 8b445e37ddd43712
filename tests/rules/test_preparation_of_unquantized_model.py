from __future__ import annotations

import peft
import pytest
import tiny
import torch
from script_cases import ADAPTED, IMPORTS, LOADED, TRAINED, findings

PLAIN = "model = AutoModelForCausalLM.from_pretrained('meta/base-7b', dtype=torch.bfloat16)\n"
PREPARE = "model = prepare_model_for_kbit_training(model)\n"


def test_a_model_without_quantization_only_grows():
    assert findings("KB221", PLAIN + PREPARE) == [
        ("warning", PREPARE.strip(), "the model is not quantized: all of it becomes float32, and checkpointing stays off")
    ]


METHODS = IMPORTS + "from transformers import AwqConfig, HqqConfig, QuantoConfig\n"


def test_a_dequantized_model_grows_and_still_checkpoints():
    model = tiny.load("llama").dequantize()
    assert peft.prepare_model_for_kbit_training(model).is_gradient_checkpointing
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    assert findings("KB221", LOADED + "model = model.dequantize()\n" + PREPARE) == [
        ("warning", PREPARE.strip(), "the model is not quantized any more: all of it becomes float32")
    ]
    assert findings("KB402", LOADED + "model = model.dequantize()\n" + PREPARE + ADAPTED + TRAINED) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            "QuantoConfig(weights='int8')",
            ("error", "quanto weights report a float dtype and refuse the preparation's cast: a ValueError"),
        ),
        (
            "AwqConfig()",
            (
                "warning",
                "PEFT's preparation does not know awq: what is not packed becomes float32, and checkpointing stays off",
            ),
        ),
        ("HqqConfig()", None),
        ("chosen", None),
    ],
)
def test_a_method_that_peft_does_not_list(config, expected):
    script = PLAIN.replace("dtype=", f"quantization_config={config}, dtype=") + PREPARE

    found = [(severity, message) for severity, _, message in findings("KB221", script, imports=METHODS)]

    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize("dtype", ["", ", dtype=torch.float32"])
def test_quanto_in_float32_is_not_cast(dtype):
    script = PLAIN.replace(", dtype=torch.bfloat16", f", quantization_config=QuantoConfig(weights='int8'){dtype}") + PREPARE

    assert [severity for severity, *_ in findings("KB221", script, imports=METHODS)] == ["warning"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + PREPARE, id="quantized"),
        pytest.param(PLAIN.replace("base-7b", "base-7b-bnb-4bit") + PREPARE, id="stored quantized"),
        pytest.param(PLAIN.replace("'meta/base-7b'", "name") + PREPARE, id="unknown checkpoint"),
        pytest.param(PLAIN.replace("meta/base-7b", "./base") + PREPARE, id="a folder"),
        pytest.param(PLAIN.replace("meta/base-7b", "outputs/base") + PREPARE, id="what looks like a folder"),
        pytest.param(PLAIN.replace("dtype=torch.bfloat16", "**kwargs") + PREPARE, id="unknown arguments"),
        pytest.param("def main(model):\n    prepare_model_for_kbit_training(model)\n", id="unknown model"),
        pytest.param(PLAIN + "model = quantize(model)\n" + PREPARE, id="quantized elsewhere"),
    ],
)
def test_look_alikes(script):
    assert findings("KB221", script) == []
