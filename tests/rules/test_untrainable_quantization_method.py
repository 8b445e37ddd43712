from __future__ import annotations

import json

import pytest
from written import ADAPTED, IMPORTS, LOOP, RECIPE, TRAINED, places, said

from kbitlint.api import check

MXFP4 = "model = AutoModelForCausalLM.from_pretrained('openai/gpt-oss-20b', quantization_config=Mxfp4Config())\n"


def test_mxfp4_cannot_be_trained_through():
    assert said("KB524", MXFP4 + ADAPTED + TRAINED) == [("warning", TRAINED.strip(), "mxfp4 cannot be trained through")]


def test_methods_for_inference_are_errors():
    script = MXFP4.replace("Mxfp4Config", "FbgemmFp8Config") + ADAPTED + TRAINED

    assert places("KB524", script, imports=IMPORTS + "from transformers import FbgemmFp8Config\n") == [
        ("error", TRAINED.strip())
    ]


def test_a_loop_of_ones_own_is_a_warning():
    script = MXFP4.replace("Mxfp4Config", "FbgemmFp8Config") + ADAPTED + LOOP

    assert places("KB524", script, imports=IMPORTS + "from transformers import FbgemmFp8Config\n") == [
        ("warning", "loss.backward()")
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(MXFP4.replace("Mxfp4Config()", "Mxfp4Config(dequantize=True)") + ADAPTED + TRAINED, id="dequantized"),
        pytest.param(MXFP4, id="not trained here"),
        pytest.param(RECIPE, id="bitsandbytes"),
    ],
)
def test_look_alikes(script):
    assert said("KB524", script) == []


@pytest.mark.parametrize(
    ("method", "expected"), [("vptq", ["error"]), ("mxfp4", ["warning"]), ("gptq", []), (None, []), ({}, [])]
)
def test_config_json_names_the_method(tmp_path, method, expected):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "quantization_config": {"quant_method": method}}))

    assert [v.severity.value for v in check(str(path), select="KB524").violations] == expected
