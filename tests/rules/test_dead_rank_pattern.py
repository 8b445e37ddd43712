"""KB607: patterns for ranks and scales that match nothing."""

from __future__ import annotations

import pytest
import tiny
from checkpoint_cases import adapter, findings, lora, skipped
from peft import LoraConfig, get_peft_model
from script_cases import LOADED, flagged_lines


@pytest.mark.parametrize(
    ("pattern", "flagged"),
    [("q_proj", False), ("^q_proj", True), ("gate_proj", True), ("self_attn.q_proj", False),
     ("model.layers.3.self_attn.q_proj", False),
     ("^model.layers.11.self_attn.q_proj", False), (r".*\\.[0-3]\\..*q_proj", False), ("^layers.0.self_attn.q_proj", False)],
)  # fmt: skip
def test_a_key_of_a_pattern_that_matches_no_listed_target(pattern, flagged):
    line = f"config = LoraConfig(target_modules=['q_proj', 'v_proj'], rank_pattern={{'{pattern}': 32}})"
    body = LOADED + line + "\nmodel = get_peft_model(model, config)\n"

    assert flagged_lines("KB607", body) == ([("warning", line)] if flagged else [])
    assert flagged_lines("KB607", body.replace("['q_proj', 'v_proj']", "'all-linear'")) == []


def test_a_key_of_a_saved_pattern_that_matches_no_tensor(tmp_path):
    folder = adapter(tmp_path / "adapter", lora("model.layers.0.self_attn.q_proj"), rank_pattern={"^q_proj": 2, "q_proj": 2})

    assert [message for *_, message in findings("KB607", folder)] == [
        "rank_pattern names '^q_proj', which matches no module of the adapter: the default was used"
    ]


def test_peft_uses_the_default_rank_where_a_pattern_is_anchored():
    config = LoraConfig(target_modules=["q_proj"], r=8, rank_pattern={"^q_proj": 32})
    model = get_peft_model(tiny.load(kind="none"), config)

    assert {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name} == {8}


def test_an_adapter_without_its_tensors_is_skipped(tmp_path):
    folder = adapter(tmp_path / "adapter", None, rank_pattern={"^q_proj": 2})

    assert skipped("KB607", folder) == ["no adapter_model.safetensors here"]
