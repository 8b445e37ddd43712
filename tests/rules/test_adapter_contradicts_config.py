from __future__ import annotations

import json
import warnings

import checkpoint_cases
import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

CODE = "KB630"
CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a trained adapter of a tiny base, with changes to its configuration and tensors."""

    def save(rename=None, drop=(), settings=None, **config):
        arguments = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **config}
        model = get_peft_model(tiny.load(kind="none"), LoraConfig(**arguments))
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / FILE)
        kept = {name: tensor for name, tensor in tensors.items() if not any(part in name for part in drop)}
        save_file({(rename or str)(name): tensor for name, tensor in kept.items()}, tmp_path / FILE)
        content = json.loads((tmp_path / CONFIG).read_text())
        content |= {"base_model_name_or_path": str(tiny.checkpoint()), "init_lora_weights": True}
        (tmp_path / CONFIG).write_text(json.dumps(content | (settings or {})))
        return tmp_path

    return save


def found(folder):
    return [(severity, place) for severity, place, _ in checkpoint_cases.findings(CODE, folder)]


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(1, 21)[None]).logits.float()


def changes(folder):
    """Return whether the loaded adapter changes what the base computes."""
    base = tiny.load(kind="none")
    before = logits(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool((logits(PeftModel.from_pretrained(base, folder)) - before).abs().max() > 1e-3)


def test_an_adapter_that_peft_saved_is_not_flagged_and_loads(saved):
    for config in ({}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}, {"rank_pattern": {"v_proj": 8}}, {"bias": "all"}):
        folder = saved(**config)

        assert found(folder) == []
        assert changes(folder)
    assert found(saved(target_modules=["q_proj", "embed_tokens"])) == []
    assert found(saved(target_modules="all-linear")) == []
    assert found(saved(target_modules=r".*self_attn\.[qk]_proj", lora_bias=True)) == []


@pytest.mark.parametrize("settings", [{"r": 8}, {"rank_pattern": {"layers.0.self_attn.q_proj": 2}}])
def test_another_rank_than_the_tensors_have_stops_the_load(saved, settings):
    folder = saved(settings=settings)

    assert [severity for severity, _ in found(folder)] == ["error"]
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(tiny.load(kind="none"), folder)


def _doubled(name):
    return f"base_model.model.{name}"


def _of_the_state_dict(name):
    return name.replace(".weight", ".mine.weight")


def _wrapped(name):
    return name.replace("model.layers", "_orig_mod.model.layers")


def _bare(name):
    return name.removeprefix("base_model.model.")


@pytest.mark.parametrize("rename", [_doubled, _of_the_state_dict, _wrapped, _bare])
def test_names_that_peft_does_not_look_for_are_dropped_without_an_error(saved, rename):
    folder = saved(rename=rename)
    first = rename(f"{Q}.lora_A.weight")

    assert found(folder) == [("error", f"{FILE} {first}")]
    assert not changes(folder)


def test_the_name_under_which_peft_loads_is_found_in_the_names_of_tensors(saved):
    folder = saved(rename=lambda name: name.replace(".weight", ".default.weight"))

    assert found(folder) == []
    assert changes(folder)


def test_modules_that_the_targets_do_not_match_are_dropped(saved):
    folder = saved(settings={"target_modules": ["k_proj"]})

    assert ("error", f"{FILE} model.layers.0.self_attn.q_proj") in found(folder)
    assert not changes(folder)


def test_targets_without_a_tensor_are_a_warning(saved):
    assert found(saved(settings={"target_modules": ["q_proj", "v_proj", "k_proj"]})) == [
        ("warning", f"{CONFIG} target_modules.k_proj")
    ]
    assert found(saved(settings={"target_modules": ["q_proj", "v_proj", "query"]})) == [], "KB601 names what the base lacks"


def test_a_copy_that_is_not_in_the_file_stops_the_load(saved):
    folder = saved(modules_to_save=["lm_head"], drop=["lm_head"])

    assert found(folder) == [("error", f"{CONFIG} modules_to_save.lm_head")]
    with pytest.raises(KeyError, match="lm_head"):
        PeftModel.from_pretrained(tiny.load(kind="none"), folder)


def test_one_factor_without_the_other_changes_nothing(saved):
    folder = saved(drop=["lora_B"])

    assert found(folder) == [("error", f"{FILE} model.layers.0.self_attn.q_proj.lora_A")]
    assert not changes(folder)


def test_magnitudes_that_are_not_in_the_file_are_an_error(saved):
    assert found(saved(use_dora=True, drop=["magnitude"])) == [("error", f"{FILE} model.layers.0.self_attn.q_proj.lora_A")]


def test_a_file_of_another_type_is_an_error(saved):
    folder = saved(rename=lambda name: name.replace("lora_", "ia3_"))

    assert found(folder) == [("error", FILE)]
    assert not changes(folder)


def test_adapters_of_other_types_and_of_experts_are_not_judged(tmp_path):
    tensors = {"base_model.model.mlp.ia3_l": ("F32", (4, 1), 1)}
    assert found(checkpoint_cases.adapter(tmp_path / "ia3", tensors, peft_type="IA3")) == []
    experts = {"base_model.model.model.layers.0.mlp.experts.lora_A.weight": ("F32", (16, 4), 1)}
    folder = checkpoint_cases.adapter(tmp_path / "experts", experts, r=4, target_parameters=["mlp.experts.gate_up_proj"])
    assert found(folder) == []


def test_without_tensors_the_rule_is_skipped(tmp_path):
    folder = checkpoint_cases.adapter(tmp_path / "adapter", None)

    assert checkpoint_cases.skipped(CODE, folder) == ["no adapter_model.safetensors here"]


def test_factors_for_a_larger_base_stop_the_load(saved):
    folder = saved()
    wider = tiny.transformers.AutoConfig.from_pretrained(tiny.checkpoint(), hidden_size=96, head_dim=24)
    torch.manual_seed(0)
    tiny.transformers.LlamaForCausalLM._from_config(wider).save_pretrained(folder / "wider")
    content = json.loads((folder / CONFIG).read_text()) | {"base_model_name_or_path": str(folder / "wider")}
    (folder / CONFIG).write_text(json.dumps(content))

    problems = [(severity, message.partition(" (")[0]) for severity, _, message in checkpoint_cases.findings(CODE, folder)]
    assert problems == [
        ("error", "it makes a matrix of [64, 64], and the base has [96, 96]"),
        ("error", "it makes a matrix of [32, 64], and the base has [48, 96]"),
    ]
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(tiny.transformers.AutoModelForCausalLM.from_pretrained(folder / "wider"), folder)


def test_transposed_matrices_of_gpt2_fit(tmp_path):
    model = get_peft_model(
        tiny.load("gpt2 (Conv1D)", kind="none"), LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    )
    model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / CONFIG).read_text()) | {"base_model_name_or_path": str(tiny.checkpoint("gpt2 (Conv1D)"))}
    (tmp_path / CONFIG).write_text(json.dumps(content))

    assert found(tmp_path) == []
