from __future__ import annotations

import pytest
import script_cases as written
import tiny
from peft import LoraConfig, get_peft_model
from script_cases import flagged_lines
from trace_cases import wrap_layer

import kbitlint
from kbitlint.upstream.versions import NEWEST

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


def test_entries_of_every_other_key_that_match_nothing_are_flagged():
    config = {
        "modules_to_save": ["embed_tokns"],
        "exclude_modules": ["visual"],
        "rank_pattern": {"^q_proj": 8},
        "alpha_pattern": {"model.q_proj": 8},
        "layers_to_transform": [0, 7],
    }
    model = adapted("llama", ["q_proj"], **config)
    keys = {v.evidence["key"]: v.evidence["target"] for v in kbitlint.check(model, select=CODE).violations}

    assert keys == {key: str(next(reversed(value))) for key, value in config.items()}
    assert model.get_base_model().model.layers[0].self_attn.q_proj.r == {"default": 4}
    assert {name.split(".")[4] for name in tiny.step(model).arrived} == {"0"}


def test_entries_that_match_as_peft_matches_them_are_not_flagged():
    config = {
        "modules_to_save": ["lm_head"],
        "exclude_modules": ["v_proj"],
        "rank_pattern": {"layers.0.self_attn.q_proj": 8, r".*\.k_proj": 2},
        "alpha_pattern": {"q_proj": 8},
        "layers_to_transform": [1],
    }
    for more in ({}, {"layers_to_transform": None}):
        assert found(adapted("llama", ["q_proj", "k_proj", "v_proj"], **{**config, **more})) == (
            [("layers.0.self_attn.q_proj", "warning", "name adapted layers by the end of their path, without ^")]
            if not more
            else []
        )


def test_heads_that_peft_adds_for_a_task_are_not_flagged():
    model = get_peft_model(tiny.load("llama (classifier)"), LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS"))

    assert "classifier" in model.peft_config["default"].modules_to_save
    assert found(model) == []


def test_a_layer_that_was_replaced_after_its_adapters_were_attached_has_lost_them():
    model = adapted("llama", ["q_proj"])
    attention = model.get_base_model().model.layers[0].self_attn
    attention.q_proj = attention.q_proj.base_layer

    assert [path for path, _, _ in found(model)] == ["model.layers.0.self_attn.q_proj"]
    assert {name.split(".")[4] for name in tiny.step(model).arrived} == {"1"}


def test_layers_that_exclusions_ranges_and_copies_leave_out_are_not_flagged():
    assert found(adapted("llama", ["q_proj"], layers_to_transform=[1])) == []
    assert found(adapted("llama", "all-linear", exclude_modules=["down_proj"])) == []
    assert found(adapted("llama", ["q_proj", "lm_head"], modules_to_save=["lm_head"])) == []
    assert (
        found(
            adapted("llava (vision-language)", ["q_proj"], exclude_modules=["vision_tower.encoder.layers.0.self_attn.q_proj"])
        )
        == []
    )


VIT = """
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("google/vit-base-patch16-224-in21k", num_labels=3)
model = get_peft_model(model, LoraConfig(r=8, target_modules=["query", "value"], modules_to_save=["classifier"]))
"""


def test_a_text_model_whose_layers_kept_their_names_since_transformers_4():
    neox = VIT.replace("google/vit-base-patch16-224-in21k", "EleutherAI/pythia-1.4b")
    neox = neox.replace(', modules_to_save=["classifier"]', "")
    found = flagged_lines("KB601", neox, versions={**NEWEST, "transformers": "4.38.2"})

    assert [severity for severity, _ in found] == ["error"]


def test_a_vision_model_whose_layers_transformers_5_renamed():
    line = next(line for line in VIT.splitlines() if "LoraConfig" in line)

    assert flagged_lines("KB601", VIT) == [("error", line)]
    assert flagged_lines("KB601", VIT, versions={**NEWEST, "transformers": "4.57.1"}) == []
    assert flagged_lines("KB601", VIT.replace('"query", "value"', '"q_proj", "v_proj"')) == []
    assert flagged_lines("KB601", VIT.replace("google/vit-base-patch16-224-in21k", "MCG-NJU/videomae-base")) == []


def script(targets, name="Qwen/Qwen2.5-7B", more=""):
    return (
        written.LOADED.replace('"org/base"', f'"{name}"{more}')
        + f"model = get_peft_model(model, LoraConfig(r=8, target_modules={targets}))\n"
    )


def test_a_script_that_names_layers_of_another_architecture():
    none = "no module of this architecture is called query_key_value"
    line = script(["query_key_value"]).splitlines()[-1]

    assert written.findings(CODE, script(["query_key_value"])) == [("error", line, f"{none}: PEFT refuses them")]
    assert written.findings(CODE, script(["q_proj", "query_key_value"])) == [
        ("warning", script(["q_proj", "query_key_value"]).splitlines()[-1], none)
    ]
    generic = script([*(f"{one}_proj" for one in ["q", "k", "v", "o", "gate", "up", "down"]), "query_key_value"])
    assert written.findings(CODE, generic) == [("info", generic.splitlines()[-1], none)]  # no layer is left out


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(script(["q_proj", "v_proj"]), id="names of this architecture"),
        pytest.param(script(["own_layer"]), id="a name of no architecture"),
        pytest.param(script("'all-linear'"), id="no list"),
        pytest.param(script(["query_key_value"], "org/base"), id="an unknown architecture"),
        pytest.param(script(["query_key_value"], more=", trust_remote_code=True"), id="code of the checkpoint's own"),
        pytest.param(script("names"), id="an unknown list"),
        pytest.param(
            script(["query_key_value"]).replace("LoraConfig(r=8", "IA3Config(feedforward_modules=[]"), id="other adapters"
        ),
        pytest.param(script("['query_key_value'] if falcon else ['q_proj']"), id="on some path"),
    ],
)
def test_scripts_whose_targets_may_be_there(body):
    assert written.findings(CODE, body) == []


def test_names_of_transformers_4_are_not_judged_by_the_architectures_of_5():
    moe = script(["query_key_value"], "Qwen/Qwen3-30B-A3B")

    assert [severity for severity, _, _ in written.findings(CODE, moe)] == ["error"]
    assert written.findings(CODE, moe, versions=written.OLD) == []


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 stores no fused experts")
@pytest.mark.parametrize("packed", [False, True])
def test_experts_that_are_packed_in_place_are_not_found_by_the_end_of_their_name(packed):
    """PEFT compares the end with ``experts.parametrizations.down_proj.original``, and warns if no name matches."""
    family = "qwen3_moe (MoE, q and k norms)"
    model = tiny.prepared(family) if packed else tiny.load(family)
    names = ["mlp.experts.down_proj"]
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], target_parameters=names, init_lora_weights=False))
    assert [path for path, _, _ in found(model)] == (names if packed else [])
    assert [severity for _, severity, _ in found(model)] == ["warning"] * packed
    learns = {"experts" if "experts" in name else "q_proj" for name in tiny.step(model).arrived if "lora_" in name}
    assert learns == ({"q_proj"} if packed else {"q_proj", "experts"})
