from __future__ import annotations

import pytest
from written import OLD, fixed, places, said

OLD_STYLE = "model = AutoModelForCausalLM.from_pretrained('org/base', load_in_8bit=True, device_map='auto')\n"


def test_the_keyword_is_gone_in_transformers_5():
    assert said("KB522", OLD_STYLE) == [
        ("error", OLD_STYLE.strip(), "from_pretrained takes no load_in_8bit any more: a TypeError")
    ]


def test_the_fix_says_the_same_as_a_config(tmp_path):
    assert fixed("KB522", OLD_STYLE, tmp_path) == OLD_STYLE.replace(
        "load_in_8bit=True", "quantization_config=BitsAndBytesConfig(load_in_8bit=True)"
    )


def test_the_fix_for_4_bits_asks_for_nf4_and_bfloat16(tmp_path):
    script = OLD_STYLE.replace("8bit", "4bit")
    config = 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)'

    assert fixed("KB522", script, tmp_path, unsafe=False) == script
    assert fixed("KB522", script, tmp_path) == script.replace("load_in_4bit=True", f"quantization_config={config}")


def test_the_fix_imports_what_it_needs(tmp_path):
    imports = "from transformers import AutoModelForCausalLM\n"

    assert fixed("KB522", imports + OLD_STYLE, tmp_path, imports="").startswith(
        "from transformers import BitsAndBytesConfig\n" + imports
    )


def test_the_int8_preparation_is_gone_from_peft():
    script = "from peft import prepare_model_for_int8_training\n"

    assert places("KB522", script) == [("error", script.strip())]


@pytest.mark.parametrize(
    ("script", "how"),
    [
        pytest.param(OLD_STYLE, {"versions": OLD}, id="transformers 4"),
        pytest.param(OLD_STYLE.replace("True", "False"), {}, id="off"),
        pytest.param("config = BitsAndBytesConfig(load_in_8bit=True)\n", {}, id="where it belongs"),
        pytest.param("kwargs = {}\n" + OLD_STYLE.replace("load_in_8bit=True", "**kwargs"), {}, id="empty kwargs"),
    ],
)
def test_look_alikes(script, how):
    assert said("KB522", script, **how) == []


def test_where_both_are_given_the_fix_is_shown_only(tmp_path):
    script = OLD_STYLE.replace("device_map='auto'", "quantization_config=BitsAndBytesConfig(load_in_8bit=True)")

    assert places("KB522", script) == [("error", script.strip())]
    assert fixed("KB522", script, tmp_path) == script
