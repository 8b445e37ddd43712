"""KB501: quantization configs that no call receives."""

from __future__ import annotations

import pytest
from script_cases import RECIPE, findings, fixed_text

BUILT = "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.bfloat16)\n"
PLAIN = "model = AutoModelForCausalLM.from_pretrained('org/base', dtype=torch.bfloat16)\n"


def said(body):
    return [(severity, line, message) for severity, line, message in findings("KB501", body)]


def test_a_config_that_is_passed_is_clean():
    assert said(RECIPE) == []


@pytest.mark.parametrize(
    "use",
    [
        "model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config=bnb)\n",
        "import cfg\nmodel = cfg.load('org/base', bnb)\n" + PLAIN,
        "settings = {'quantization_config': bnb}\n" + PLAIN,
        "def load():\n    return bnb\n" + PLAIN,
        "model = AutoModelForCausalLM.from_pretrained('org/base', **settings)\n",
        "import cfg\nmodel = cfg.load('org/base')\n",
        "",
    ],
)
def test_a_config_that_code_reads_or_a_file_that_loads_otherwise_is_clean(use):
    assert said(BUILT + use) == []


def test_a_config_that_is_built_and_forgotten_is_a_warning():
    assert said(BUILT + PLAIN) == [("warning", BUILT.strip(), "bnb is made and never used: the model loads without it")]
    assert len(said(f"bnb = None\nimport cfg\nif cfg.four:\n    {BUILT}# bnb is passed below\n{PLAIN}")) == 1


def test_it_is_passed_only_if_asked(tmp_path):
    fixed = PLAIN.replace("bfloat16)", "bfloat16, quantization_config=bnb)")

    assert fixed_text("KB501", BUILT + PLAIN, tmp_path, unsafe=False) == BUILT + PLAIN
    assert fixed_text("KB501", BUILT + PLAIN, tmp_path) == BUILT + fixed


def test_a_load_in_another_function_is_by_hand(tmp_path):
    body = f"def config():\n    {BUILT}\ndef load():\n    {PLAIN}    return model\n"

    assert fixed_text("KB501", body, tmp_path) == body
