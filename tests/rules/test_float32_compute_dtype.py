from __future__ import annotations

import json

import plants
import pytest
import tiny
import torch
from script_cases import LOADED, findings, fixed_text

import kbitlint

CODE = "KB502"


def test_the_default_of_bitsandbytes_config_is_flagged_on_every_layer():
    model = tiny.load(compute=torch.float32)

    report = kbitlint.check(model, select=CODE)

    assert {v.at.path for v in report.violations} == set(plants.QUANTIZED)
    assert {v.message for v in report.violations} == {"4-bit layers multiply in float32 while the model is bfloat16"}


def test_a_model_that_is_float32_throughout_is_not_flagged():
    assert kbitlint.check(tiny.load(dtype=torch.float32), select=CODE).violations == ()


def test_float32_norms_do_not_make_the_model_float32():
    model = tiny.load(compute=torch.float32)
    kbitlint.fix(model)

    assert len(kbitlint.check(model, select=CODE).violations) == 14


def test_the_fix_is_unsafe_and_sets_the_models_own_dtype():
    model = tiny.load(compute=torch.float32)

    assert len(kbitlint.fix(model, select=CODE).violations) == 14
    assert kbitlint.fix(model, select=CODE, unsafe=True).violations == ()
    assert model.model.layers[0].self_attn.q_proj.compute_dtype == torch.bfloat16


def test_eight_bit_models_are_skipped():
    assert kbitlint.check(tiny.load(kind="int8"), select=CODE).skips[0].reason == "no bitsandbytes 4-bit layers"


QUANTIZATION = {"load_in_4bit": True, "quant_method": "bitsandbytes", "bnb_4bit_compute_dtype": "float32"}


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({}, True),
        ({"torch_dtype": "float16", "dtype": None}, True),
        ({"dtype": "float32"}, False),
        ({"dtype": None}, False),
        ({"quantization_config": QUANTIZATION | {"bnb_4bit_compute_dtype": "bfloat16"}}, False),
        ({"quantization_config": QUANTIZATION | {"load_in_4bit": False}}, False),
        ({"quantization_config": QUANTIZATION | {"quant_method": "gptq"}}, False),
    ],
)
def test_config_json_is_read_without_a_model(tmp_path, changes, flagged):
    config = {"model_type": "llama", "dtype": "bfloat16", "quantization_config": QUANTIZATION} | changes
    (tmp_path / "config.json").write_text(json.dumps(config))

    report = kbitlint.check(tmp_path / "config.json", select=CODE)

    places = [(v.at.file, v.at.path, v.surface.value) for v in report.violations]
    assert places == ([("config.json", "quantization_config.bnb_4bit_compute_dtype", "files")] if flagged else [])


def test_a_config_without_quantization_is_skipped(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    assert kbitlint.check(tmp_path / "config.json", select=CODE).skips[0].reason == "config.json names no quantization_config"


# ---------------------------------------------------------------------------------------------------- source


UNSET = "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')\n"
LOAD = "model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config=bnb, dtype=torch.float32)\n"


def test_a_compute_dtype_that_is_not_given_is_float32():
    assert findings("KB502", UNSET) == [
        ("warning", UNSET.strip(), "4-bit layers multiply in float32: bnb_4bit_compute_dtype is not given")
    ]


def test_one_that_is_asked_for_is_worth_knowing():
    asked = UNSET.replace(")", ", bnb_4bit_compute_dtype=torch.float32)")

    assert findings("KB502", asked) == [
        ("info", asked.strip(), "4-bit layers multiply in float32, as bnb_4bit_compute_dtype asks")
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED, id="bfloat16"),
        pytest.param(UNSET + LOAD, id="the model is float32 too"),
        pytest.param(UNSET.replace("load_in_4bit", "load_in_8bit"), id="8 bits have none"),
        pytest.param(UNSET.replace(")", ", **more)"), id="unknown arguments"),
        pytest.param(UNSET.replace(")", ", bnb_4bit_computedtype=torch.bfloat16)"), id="a misspelt name is another rule's"),
        pytest.param(UNSET.replace(")", ", bnb_4bit_compute_dtype=getattr(torch, name))"), id="unknown dtype"),
    ],
)
def test_source_look_alikes(script):
    assert findings("KB502", script) == []


def test_the_source_fix_computes_in_bfloat16_and_imports_torch(tmp_path):
    imports = "from transformers import BitsAndBytesConfig\n"

    assert fixed_text("KB502", imports + UNSET, tmp_path, imports="") == "import torch\n" + imports + UNSET.replace(
        "'nf4')", "'nf4', bnb_4bit_compute_dtype=torch.bfloat16)"
    )


def test_a_module_that_the_function_imports_is_not_imported_again(tmp_path):
    body = (
        "def build():\n    import torch\n    from transformers import BitsAndBytesConfig\n\n    if ready:\n"
        "        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')\n\n\nbuild()\n"
    )
    elsewhere = body.replace("    import torch\n", "").replace("build():", "other():\n    import torch\n\n\ndef build():", 1)

    fixed = fixed_text("KB502", body, tmp_path, imports="")

    assert fixed == body.replace("'nf4')", "'nf4', bnb_4bit_compute_dtype=torch.bfloat16)")
    assert fixed_text("KB502", elsewhere, tmp_path, imports="").startswith("import torch\n")
