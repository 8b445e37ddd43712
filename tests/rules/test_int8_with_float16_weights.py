from __future__ import annotations

import json

import pytest
from script_cases import LOADED, findings, fixed_text

from kbitlint.api import check, fix

FLAG = "bnb = BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)\n"


def test_the_weights_stay_in_16_bits():
    assert findings("KB525", FLAG) == [("warning", FLAG.strip(), "8-bit layers keep their weights in 16 bits")]


def test_the_fix_turns_it_off(tmp_path):
    assert fixed_text("KB525", FLAG, tmp_path) == FLAG.replace("weight=True", "weight=False")


@pytest.mark.parametrize("script", [FLAG.replace("8bit", "4bit"), FLAG.replace("weight=True", "weight=False"), LOADED])
def test_look_alikes(script):
    assert findings("KB525", script) == []


@pytest.mark.parametrize(("eight", "found"), [(True, 1), (False, 0)])
def test_config_json(tmp_path, eight, found):
    path = tmp_path / "config.json"
    quantization = {"quant_method": "bitsandbytes", "load_in_8bit": eight, "llm_int8_has_fp16_weight": True}
    path.write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))

    assert len(check(str(path), select="KB525").violations) == found
    fix(str(path), select="KB525", unsafe=True)
    assert json.loads(path.read_text())["quantization_config"]["llm_int8_has_fp16_weight"] is not eight
