from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model
from script_cases import LOADED, NEWEST, beside, findings, fixed_text
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
MODELS = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=2)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, num_key_value_heads=2, head_dim=8, num_experts=2, moe_intermediate_size=16)
    ),
}
CASES = [
    ("mixtral", ["q_proj", "w1", "w2", "w3"], 0.05, "dropout"),
    ("mixtral", ["q_proj", "w1", "w2", "w3"], 0.0, ""),
    ("mixtral", ["q_proj", "w1", "w2"], 0.0, "only one"),
    ("mixtral", "all-linear", 0.1, "dropout"),
    ("mixtral", "all-linear", 0.0, ""),
    ("mixtral", ["q_proj", "v_proj"], 0.1, ""),
    ("qwen3_moe", ["q_proj", "gate_proj", "up_proj", "down_proj"], 0.1, "dropout"),
    ("qwen3_moe", ["q_proj", "up_proj"], 0.0, "only one"),
    ("qwen3_moe", ["q_proj", "o_proj"], 0.1, ""),
]


@pytest.mark.parametrize(("model_type", "targets", "dropout", "why"), CASES)
def test_what_is_reported_is_what_peft_refuses(tmp_path, model_type, targets, dropout, why):
    config = {"model_type": model_type, "num_local_experts": 2}
    script = (
        LOADED.replace("org/base", "base")
        + f"model = get_peft_model(model, LoraConfig(target_modules={targets!r}, lora_dropout={dropout}))\n"
    )
    found = beside("KB532", script, tmp_path, config)

    assert [why in message for *_, message in found] == ([True] if why else [])
    try:
        get_peft_model(MODELS[model_type](), LoraConfig(target_modules=targets, lora_dropout=dropout))
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
    assert bool(refused) == bool(why)
    assert ("lora_dropout" in refused) == (why == "dropout")


def test_the_fix_switches_dropout_off(tmp_path):
    load = LOADED.replace("org/base", "mistralai/Mixtral-8x7B-v0.1")
    script = load + "model = get_peft_model(model, LoraConfig(target_modules='all-linear', lora_dropout=0.1))\n"

    assert fixed_text("KB532", script, tmp_path) == script.replace("lora_dropout=0.1", "lora_dropout=0.0")


def test_older_versions_are_not_judged():
    load = LOADED.replace("org/base", "mistralai/Mixtral-8x7B-v0.1")
    script = load + "model = get_peft_model(model, LoraConfig(target_modules='all-linear', lora_dropout=0.1))\n"

    assert len(findings("KB532", script)) == 1
    assert findings("KB532", script, versions={**NEWEST, "peft": "0.15.0"}) == []


def test_a_dropout_that_is_zero_on_some_path_is_not_flagged():
    load = LOADED.replace("org/base", "mistralai/Mixtral-8x7B-v0.1")
    script = load + "model = get_peft_model(model, LoraConfig(target_modules='all-linear', lora_dropout=0.1 if big else 0.0))\n"

    assert findings("KB532", script) == []
