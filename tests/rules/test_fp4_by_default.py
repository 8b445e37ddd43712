from __future__ import annotations

import pytest
from script_cases import findings, fixed_text

UNSET = "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)\n"


def test_fp4_is_what_no_type_means():
    assert findings("KB520", UNSET) == [("info", UNSET.strip(), "weights are packed as fp4: bnb_4bit_quant_type is not given")]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(UNSET.replace(")", ", bnb_4bit_quant_type='fp4')"), id="asked for"),
        pytest.param(UNSET.replace("load_in_4bit", "load_in_8bit"), id="8 bits have no type"),
        pytest.param(UNSET.replace(")", ", **more)"), id="unknown arguments"),
    ],
)
def test_look_alikes(script):
    assert findings("KB520", script) == []


def test_the_fix_names_nf4(tmp_path):
    assert fixed_text("KB520", UNSET, tmp_path) == UNSET.replace("bfloat16)", 'bfloat16, bnb_4bit_quant_type="nf4")')
