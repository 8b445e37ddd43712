"""Folders: built on meta exactly as loading would, fixed on the device, prepared again on the next load."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import tiny
import torch

import kbitlint
from kbitlint.model.inspect.walk import collect


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(tiny.checkpoint(), tmp_path / "llama")


@pytest.fixture
def packed(tmp_path):
    """A checkpoint that is quantized already."""
    tiny.load().save_pretrained(tmp_path / "packed")
    return tmp_path / "packed"


def structure(model):
    """Everything of the facts that a device cannot change."""
    facts = collect(model)
    return (
        facts.class_name,
        [(p.path, p.dtype, p.shape, p.requires_grad, p.packed, p.norm) for p in facts.parameters],
        facts.norms,
        [dataclasses.replace(layer, repacks=False) for layer in facts.quantized],  # only a weight on this CPU is repacked
        facts.embeddings,
        facts.checkpoints,
        facts.claims_quantization,
        facts.tied,
        facts.training,
    )


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8", "none"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_model_built_on_meta_is_the_one_that_loading_gives(family, kind):
    from kbitlint.model.build.checkpoint_config import Source
    from kbitlint.model.build.meta import build

    built = build(Source(str(tiny.checkpoint(family))), kind).model

    arguments = {} if kind == "none" else {"quantization_config": tiny.quantization(kind)}
    import transformers

    cls = getattr(transformers, tiny.FAMILIES[family][0])
    dtype = next(p.dtype for p in built.parameters() if p.is_floating_point())
    loaded = cls.from_pretrained(tiny.checkpoint(family), device_map={"": "cpu"}, dtype=dtype, **arguments)
    if kind in ("nf4", "fp4"):
        for module in loaded.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = dtype
    assert structure(built) == structure(loaded)
    assert all(parameter.is_meta for parameter in built.parameters())


def test_a_packed_checkpoint_is_built_as_its_own_config_says(packed):
    from transformers import AutoModelForCausalLM

    from kbitlint.model.build.checkpoint_config import Source
    from kbitlint.model.build.meta import build

    built = build(Source(str(packed)))

    assert structure(built.model) == structure(AutoModelForCausalLM.from_pretrained(packed, device_map={"": "cpu"}))
    assert built.notes == ()


def test_a_packed_checkpoint_keeps_the_dtypes_that_its_files_name(tmp_path):
    from transformers import AutoModelForCausalLM

    from kbitlint.model.build.checkpoint_config import Source
    from kbitlint.model.build.meta import build

    model = tiny.load()
    kbitlint.fix(model, select="KB101")
    model.save_pretrained(tmp_path)

    built = build(Source(str(tmp_path)))

    assert structure(built.model) == structure(AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"}))


def test_a_damaged_header_is_one_line(run, packed):
    (packed / "model.safetensors").write_bytes(b"\xff" * 64)

    result = run("check", packed)

    if not tiny.TRANSFORMERS_5:  # transformers 4 casts to the config's dtype, so no header is read
        assert (result.exit_code, result.stderr) == (1, "")
        return
    assert result.exit_code == 2
    assert result.stderr.startswith(f"kbitlint: {packed}/model.safetensors: its header cannot be read: ")


def test_a_checkpoints_own_quantization_wins_and_that_is_said(run, packed):
    result = run("check", packed, "--quantize", "int8", "--format", "json")

    (target,) = json.loads(result.stdout)["targets"]
    assert "config.json's own quantization_config (bitsandbytes) wins over int8 (--quantize)" in target["notes"]
    assert target["summary"] == "LlamaForCausalLM 106.8K, bitsandbytes nf4 on 14 layers"


def test_no_weight_is_read(folder):
    for weights in folder.glob("*.safetensors"):
        weights.unlink()

    report = kbitlint.check(folder, quantize="nf4")

    assert ({v.code for v in report.violations}, report.weights_read) == ({"KB101", "KB201", "KB402"}, False)


def test_fix_then_check_is_clean_and_the_prepared_model_trains(run, folder):
    weights = {path: path.read_bytes() for path in folder.glob("*.safetensors")}

    fixed = run("--fix", folder, "--quantize", "nf4", "--device", "cpu")
    checked = run("check", folder, "--fail-on", "info")
    model = kbitlint.load_prepared(folder, device="cpu")

    assert (fixed.exit_code, checked.exit_code) == (0, 0), fixed.output + checked.output
    assert "training step on cpu: loss" in fixed.output
    assert {path: path.read_bytes() for path in folder.glob("*.safetensors")} == weights
    kbitlint.assert_ready(model, fail_on="info")
    assert tiny.step(tiny.with_lora(model)).trains


def test_without_the_stored_edits_loading_forgets_the_preparation(run, folder):
    run("--fix", folder, "--quantize", "nf4", "--device", "cpu")
    (folder / "kbitlint.json").unlink()

    assert run("check", folder, "--quantize", "nf4").exit_code == 1


def test_fixing_twice_changes_nothing(run, folder):
    run("--fix", folder, "--quantize", "nf4", "--device", "cpu")
    first = (folder / "kbitlint.json").read_bytes()

    second = run("--fix", folder, "--device", "cpu")

    assert (second.exit_code, "nothing to fix" in second.output) == (0, True)
    assert (folder / "kbitlint.json").read_bytes() == first


def test_a_folder_with_a_config_only_is_planned_without_a_training_step(run, folder):
    for weights in folder.glob("*.safetensors"):
        weights.unlink()

    result = run("--fix", folder, "--quantize", "nf4", "--device", "cpu", "--format", "json")

    (target,) = json.loads(result.stdout)["targets"]
    assert (result.exit_code, target["fixed"]["probe"]) == (0, None)
    assert "no weights in the folder, so no training step was run" in target["notes"]
    assert run("check", folder, "--fail-on", "info").exit_code == 0


def test_pickled_weights_are_never_loaded(run, folder):
    for weights in folder.glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))

    result = run("--fix", folder, "--quantize", "nf4", "--device", "cpu")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"kbitlint: {folder}: {folder} holds pickled weights only, which are never loaded; convert them to safetensors\n"
    )


def test_an_adapter_folder_is_its_base_with_the_adapter_attached(run, folder, tmp_path):
    base = tiny.load()
    base.config._name_or_path = base.name_or_path = str(folder)
    tiny.with_lora(base, target_modules=["q_proj"]).save_pretrained(tmp_path / "adapter")

    result = run("check", tmp_path / "adapter", "--quantize", "nf4", "--format", "json")

    (target,) = json.loads(result.stdout)["targets"]
    assert target["summary"] == (
        "LlamaForCausalLM 106.8K, bitsandbytes nf4 on 14 layers, LoRA r=4 on 2 layers,"
        " 11% of the linear weights have an adapter, none of gate_proj, up_proj, down_proj, o_proj, k_proj, ..."
    )
    assert {violation["code"] for violation in target["violations"]} == {"KB101", "KB202", "KB402"}
    assert f"the adapter's base is {folder}" in target["notes"]


def test_an_adapter_folder_is_fixed_and_loads_prepared(run, folder, tmp_path):
    base = tiny.load()
    base.config._name_or_path = base.name_or_path = str(folder)
    tiny.with_lora(base, target_modules=["q_proj"]).save_pretrained(tmp_path / "adapter")

    fixed = run("--fix", tmp_path / "adapter", "--quantize", "nf4", "--device", "cpu")
    model = kbitlint.load_prepared(tmp_path / "adapter", device="cpu")

    assert fixed.exit_code == 0, fixed.output
    kbitlint.assert_ready(model, fail_on="warning")
    assert tiny.step(model).trains


def test_diff_shows_the_plan_and_changes_nothing(run, folder):
    result = run("check", folder, "--quantize", "nf4", "--diff")

    assert result.exit_code == 1
    assert "--fix would make" in result.output
    assert "model.layers.*.input_layernorm" in result.output
    assert not (folder / "kbitlint.json").exists()


def test_float16_keeps_what_the_class_keeps_in_float32():
    import transformers

    from kbitlint.model.build.meta import instantiate

    config = transformers.AutoConfig.from_pretrained(tiny.checkpoint("t5 (encoder-decoder)"))
    cls = transformers.T5ForConditionalGeneration

    built = instantiate(cls, config, tiny.quantization(compute=torch.float16), torch.float16)
    loaded = tiny.load("t5 (encoder-decoder)", dtype=torch.float16)

    assert structure(built) == structure(loaded)


def test_a_composite_config_gives_its_text_part_to_a_text_only_class(tmp_path):
    """As AutoModelForCausalLM does: Llama 4's config.json describes a vision model too."""
    import transformers

    text = {key: value for key, value in tiny._TEXT.items() if key != "pad_token_id"}
    config = transformers.Llama4Config(text_config=text | {"num_local_experts": 2, "intermediate_size_mlp": 128})
    config.architectures = ["Llama4ForCausalLM"]
    config.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text()) | {"dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(content))

    report = kbitlint.check(tmp_path, quantize="nf4")

    assert report.summary.startswith("Llama4ForCausalLM ")
    experts = {"KB504", "KB510"} if tiny.TRANSFORMERS_5 else {"KB504"}  # its experts stay float; its router in 5 only
    assert {violation.code for violation in report.violations} == {"KB101", "KB201", "KB402"} | experts
