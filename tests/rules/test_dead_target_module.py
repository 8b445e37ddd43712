from __future__ import annotations

import pytest
import tiny
from checkpoint_cases import adapter, findings, lora
from peft import LoraConfig, get_peft_model
from script_cases import LOADED, flagged_lines
from trace_cases import wrap_layer

import kbitlint

CODE = "KB601"
EXPERTS = ["gate_proj", "up_proj", "down_proj"]


def adapted(family, targets, **config):
    return get_peft_model(tiny.load(family), LoraConfig(r=4, target_modules=targets, **config))


def found(model):
    return [(v.at.path, v.severity.value, v.fix.title) for v in kbitlint.check(model, select=CODE).violations]


def test_names_of_experts_match_nothing_in_mixtral():
    model = adapted("mixtral (MoE)", ["q_proj", *EXPERTS])

    title = "name experts in target_parameters" if tiny.TRANSFORMERS_5 else "name a module of this architecture"
    assert found(model) == [(name, "warning", title) for name in sorted(EXPERTS)]
    assert {name.split(".")[-4] for name in tiny.step(model).arrived} == {"q_proj"}, "nothing else learns"


def test_names_that_peft_converts_are_not_flagged():
    model = adapted("qwen3_moe (MoE, q and k norms)", ["q_proj", *EXPERTS])

    assert found(model) == []
    assert any("experts" in name for name in tiny.step(model).arrived)


def test_a_name_of_another_architecture_is_flagged():
    assert found(adapted("llama", ["q_proj", "query_key_value"])) == [
        ("query_key_value", "warning", "name a module of this architecture")
    ]


def test_whole_paths_ends_of_paths_and_patterns_are_not_flagged():
    for targets in (["model.layers.0.self_attn.q_proj"], ["self_attn.q_proj", "v_proj"], r".*\.q_proj", "all-linear"):
        assert found(adapted("llama", targets)) == []
    assert [path for path, _, _ in found(adapted("llama", ["q_proj", "attention.k_proj"]))] == ["attention.k_proj"]


def test_a_layer_that_is_wrapped_after_its_adapters_were_attached_keeps_them():
    targets = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
    model = adapted("llama", targets)
    wrap_layer(model, 0, lambda layer, *args, **kwargs: layer(*args, **kwargs))

    assert found(model) == []
    assert len(tiny.step(model).arrived) == 4, "both layers learn"
    assert [path for path, _, _ in found(adapted("llama", [*targets, "model.layers.0.q_proj"]))] == ["model.layers.0.q_proj"]


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"


@pytest.mark.parametrize(
    ("pattern", "flagged"),
    [("q_proj", False), ("^q_proj", True), ("gate_proj", True), ("self_attn.q_proj", False),
     ("model.layers.3.self_attn.q_proj", False),
     ("^model.layers.11.self_attn.q_proj", False), (r".*\\.[0-3]\\..*q_proj", False), ("^layers.0.self_attn.q_proj", False)],
)  # fmt: skip
def test_a_key_of_a_pattern_that_matches_no_listed_target(pattern, flagged):
    line = f"config = LoraConfig(target_modules=['q_proj', 'v_proj'], rank_pattern={{'{pattern}': 32}})"
    body = LOADED + line + "\nmodel = get_peft_model(model, config)\n"

    assert flagged_lines("KB601", body) == ([("warning", line)] if flagged else [])
    assert flagged_lines("KB601", body.replace("['q_proj', 'v_proj']", "'all-linear'")) == []


def test_a_key_of_a_saved_pattern_that_matches_no_tensor(tmp_path):
    folder = adapter(tmp_path / "adapter", lora("model.layers.0.self_attn.q_proj"), rank_pattern={"^q_proj": 2, "q_proj": 2})

    assert [message for *_, message in findings("KB601", folder)] == [
        "rank_pattern names '^q_proj', which matches no module of the adapter: the default was used"
    ]


def test_peft_uses_the_default_rank_where_a_pattern_is_anchored():
    config = LoraConfig(target_modules=["q_proj"], r=8, rank_pattern={"^q_proj": 32})
    model = get_peft_model(tiny.load(kind="none"), config)

    assert {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name} == {8}
