from __future__ import annotations

import pytest
import tiny
from script_cases import LOADED, OLD, beside, findings, flagged_lines

import kbitlint

CODE = "KB504"
EXPERTS = [f"model.layers.{i}.mlp.experts.{name}" for i in (0, 1) for name in ("down_proj", "gate_up_proj")]


def found(model):
    return kbitlint.check(model, select=CODE).violations


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_fused_experts_are_flagged_with_the_share_that_is_quantized():
    violations = found(tiny.load("mixtral (MoE)"))

    assert [v.at.path for v in violations] == EXPERTS
    assert {(v.message, v.severity.value) for v in violations} == {
        ("fused experts stay bfloat16: 10% of the model's parameters are quantized", "warning")
    }


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_the_evidence_is_what_the_tensors_take():
    model = tiny.load("mixtral (MoE)")

    for violation in found(model):
        assert violation.evidence["bytes"] == model.get_parameter(violation.at.path).nbytes
    assert sum(v.evidence["bytes"] for v in found(model)) > 0.8 * sum(p.nbytes for p in model.parameters())
    assert tiny.step(tiny.with_lora(model)).trains, "it costs memory only"


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_experts_below_an_adapter_are_flagged_where_they_are():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        tiny.load("mixtral (MoE)"), LoraConfig(r=4, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])
    )

    assert [v.at.path for v in found(model)] == [path.replace("experts.", "experts.base_layer.") for path in EXPERTS]


def test_stacked_experts_are_flagged_in_every_version():
    model = tiny.load("gpt_oss (experts stacked by every version)")

    assert [v.at.path for v in found(model)] == EXPERTS
    assert tiny.step(tiny.with_lora(model)).trains, "it costs memory only"


@pytest.mark.skipif(tiny.TRANSFORMERS_5, reason="transformers 5 stacks them")
def test_experts_in_lists_are_quantized_and_not_flagged():
    model = tiny.load("mixtral (MoE)")

    assert found(model) == ()
    assert type(model.model.layers[0].block_sparse_moe.experts[0].w1).__name__ == "Linear4bit"


def test_a_small_share_is_worth_knowing():
    import torch

    model = tiny.load()
    model.model.layers[0].experts = torch.nn.Parameter(torch.zeros(4, 8, 8))
    model.model.layers[0].positions = torch.nn.Parameter(torch.zeros(4, 8, 8))

    assert [(v.at.path, v.severity.value) for v in found(model)] == [("model.layers.0.experts", "info")]


def test_dense_models_convolutions_and_position_tables_are_not_flagged():
    for family in ("llama", "bamba (SSM hybrid)", "llava (vision-language)"):
        assert found(tiny.load(family)) == ()


def test_an_unquantized_mixture_is_skipped():
    report = kbitlint.check(tiny.load("mixtral (MoE)", kind="none"), select=CODE)

    assert (report.violations, report.skips[0].reason) == ((), "no layer is quantized")


LOAD = LOADED.split("\n")[1]
STAY = "the experts stay unquantized: transformers 5 stacks them in parameters that bitsandbytes does not pack"


@pytest.mark.parametrize(
    "config", [{"num_local_experts": 8}, {"num_experts": 64}, {"text_config": {"n_routed_experts": 256, "model_type": "x"}}]
)
def test_a_script_that_packs_a_checkpoint_with_experts(tmp_path, config):
    assert beside(CODE, LOADED, tmp_path, config) == [("warning", LOAD.replace("org/base", "base"), STAY)]


@pytest.mark.parametrize(
    "name", ["mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen1.5-MoE-A2.7B", "allenai/OLMoE-1B-7B-0924"]
)
def test_a_name_that_tells_of_experts(name):
    script = LOADED.replace("org/base", name)

    assert findings(CODE, script) == [("warning", LOAD.replace("org/base", name), STAY)]
    assert findings(CODE, script, versions=OLD) == []


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="none"),
        pytest.param({"num_experts": 1}, id="one"),
        pytest.param({"num_experts": 8, "auto_map": {"AutoModel": "m.M"}}, id="code of its own"),
        pytest.param({"num_experts": 8, "model_type": "jetmoe"}, id="few of them"),
    ],
)
def test_checkpoints_that_look_alike(tmp_path, config):
    assert beside(CODE, LOADED, tmp_path, config) == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED, id="nothing tells of experts"),
        pytest.param(LOADED.replace("org/base", "Qwen/Qwen3-30B"), id="a dense sister"),
        pytest.param(LOADED.replace("org/base", "Qwen/Qwen3-30B-A3B-GPTQ-Int4"), id="stored quantized"),
        pytest.param(LOADED.replace("org/base", "Qwen/Qwen3-30B-A3B").replace("=bnb", "=None"), id="not quantized"),
        pytest.param(LOADED.replace('"org/base"', "name"), id="an unknown checkpoint"),
    ],
)
def test_scripts_that_look_alike(script):
    assert flagged_lines(CODE, script) == []


def test_of_a_configuration_the_key_is_shown():
    text = "base_model: Qwen/Qwen3-30B-A3B\nadapter: qlora\nload_in_4bit: true\nmicro_batch_size: 1\n"

    assert flagged_lines(CODE, text, suffix=".yaml") == [("warning", "load_in_4bit: true")]
