from __future__ import annotations

import json

import pytest
from script_cases import IMPORTS, LOADED, OLD, findings, fixed_text, flagged_lines

from kbitlint.api import check, fix

MISSPELT = "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_type=torch.bfloat16)\n"


def test_a_misspelt_argument_is_dropped():
    assert findings("KB521", MISSPELT) == [
        ("warning", MISSPELT.strip(), "BitsAndBytesConfig knows no bnb_4bit_compute_type and drops it")
    ]


def test_the_fix_spells_it(tmp_path):
    assert fixed_text("KB521", MISSPELT, tmp_path) == MISSPELT.replace("compute_type", "compute_dtype")


def test_what_is_near_nothing_is_shown_only(tmp_path):
    script = "bnb = BitsAndBytesConfig(load_in_4bit=True, turbo=True)\n"

    assert flagged_lines("KB521", script) == [("warning", script.strip())]
    assert fixed_text("KB521", script, tmp_path) == script


def test_a_name_that_is_also_given_rightly_is_not_given_twice(tmp_path):
    script = MISSPELT.replace(")", ", bnb_4bit_compute_dtype=torch.bfloat16)")

    assert fixed_text("KB521", script, tmp_path) == script


@pytest.mark.parametrize(
    ("config", "dropped"),
    [
        ("GPTQConfig(bits=4, use_exllama=False)", "use_exllama"),
        ("GPTQConfig(4, disable_exllama=True)", "disable_exllama"),
        ("AwqConfig(bits=4, do_fuse=True)", "do_fuse"),
    ],
)
def test_configs_of_other_methods_drop_what_transformers_4_took(config, dropped):
    imports = IMPORTS + "from transformers import AwqConfig, GPTQConfig\n"
    line = f"config = {config}"

    assert findings("KB521", line, imports=imports) == [
        ("warning", line, f"{config[: config.index('(')]} knows no {dropped} and drops it")
    ]
    assert findings("KB521", line, imports=imports, versions=OLD) == []


def test_the_arguments_are_those_of_the_classes():
    transformers = pytest.importorskip("transformers", minversion="5.23")
    import inspect

    from kbitlint.upstream.quantization import QUANTIZATION_ARGUMENTS

    for name, known in QUANTIZATION_ARGUMENTS.items():
        kinds = inspect.signature(getattr(transformers, name).__init__).parameters.values()
        taken = {parameter.name for parameter in kinds if parameter.kind is parameter.POSITIONAL_OR_KEYWORD} - {"self"}
        assert taken <= set(known), name


@pytest.mark.parametrize("script", [LOADED, "BitsAndBytesConfig(True)\n", "HiggsConfig(anything=True)\n"])
def test_look_alikes(script):
    assert findings("KB521", script) == []


CONFIG = {
    "model_type": "llama",
    "quantization_config": {
        "quant_method": "bitsandbytes",
        "_load_in_4bit": True,
        "bnb_4bit_compute_type": "bfloat16",
        "odd": 1,
    },
}


def test_keys_of_config_json_are_dropped_too_and_renamed_in_place(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG, indent=2) + "\n")

    report = check(str(path), select="KB521")
    fix(str(path), select="KB521", unsafe=True)

    assert [(str(v.at), v.evidence["meant"]) for v in report.violations] == [
        ("config.json quantization_config.bnb_4bit_compute_type", "bnb_4bit_compute_dtype"),
        ("config.json quantization_config.odd", None),
    ]
    assert path.read_text() == json.dumps(CONFIG, indent=2).replace("compute_type", "compute_dtype") + "\n"


def test_other_methods_keys_are_their_own(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}))

    assert check(str(path), select="KB521").violations == ()
