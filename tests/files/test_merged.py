"""A merged folder against base and adapter: real merges of real models, saved in the ways that people save them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import tiny
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from kbitlint.errors import TargetError
from kbitlint.facts.merged import Verdict
from kbitlint.files.merged import compare, is_on_grid
from kbitlint.output.merged import findings_of, notes_of

LAYERS = 14
BOTH = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])


def base_of(folder, dtype=torch.bfloat16):
    config = transformers.LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, vocab_size=256, pad_token_id=0
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def load(folder, **settings):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **{"dtype": "auto", **settings})


def adapter_of(base, folder, *, size=0.02, **lora):
    settings = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **lora}
    model = get_peft_model(load(base), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=size)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folders(tmp_path):
    base = base_of(tmp_path / "base")
    return tmp_path / "merged", base, adapter_of(base, tmp_path / "adapter")


def verdicts(seen):
    return {verdict: len(seen.of(verdict)) for verdict in Verdict if seen.of(verdict)}


@BOTH
@pytest.mark.parametrize("lora", [{}, {"use_rslora": True}, {"r": 4, "alpha_pattern": {"q_proj": 64}}])
def test_a_merge_is_recognized(tmp_path, dtype, lora):
    base = base_of(tmp_path / "base", dtype)
    adapter = adapter_of(base, tmp_path / "adapter", **lora)
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(tmp_path / "merged")

    seen = compare(tmp_path / "merged", base, adapter)

    assert (verdicts(seen), list(findings_of(seen)), list(notes_of(seen))) == ({Verdict.MERGED: LAYERS}, [], [])


def test_a_merge_whose_result_was_dropped_is_the_base(folders):
    merged, base, adapter = folders
    model = load(base)
    model.save_pretrained(merged)

    seen = compare(merged, base, adapter)

    assert verdicts(seen) == {Verdict.ABSENT: LAYERS}
    assert [finding.partition(":")[0] for finding in findings_of(seen)] == ["14 of 14 adapted weights do not hold the adapter"]


def test_a_merge_that_was_done_twice(folders):
    merged, base, adapter = folders
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(merged)
    PeftModel.from_pretrained(load(merged), adapter).merge_and_unload().save_pretrained(merged.with_name("again"))

    assert verdicts(compare(merged.with_name("again"), base, adapter)) == {Verdict.TWICE: LAYERS}


def test_a_merge_of_some_layers_names_the_others(folders):
    merged, base, adapter = folders
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(merged)
    lost = "model.layers.1.mlp.down_proj.weight"
    tensors = load_file(merged / "model.safetensors") | {lost: load_file(base / "model.safetensors")[lost]}
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})

    (finding,) = findings_of(compare(merged, base, adapter))

    assert finding.startswith("1 of 14 adapted weights do not hold the adapter")
    assert finding.endswith(lost)


def test_another_adapter_is_something_else(folders):
    merged, base, adapter = folders
    torch.manual_seed(7)
    other = adapter_of(base, merged.with_name("other"), size=0.5)
    PeftModel.from_pretrained(load(base), other).merge_and_unload().save_pretrained(merged)

    assert verdicts(compare(merged, base, adapter)) == {Verdict.OTHER: LAYERS}


def test_a_base_that_was_unpacked_first_is_a_note(folders):
    merged, base, adapter = folders
    packed = load(base, quantization_config=tiny.quantization("nf4"))
    PeftModel.from_pretrained(packed.dequantize(), adapter).merge_and_unload().save_pretrained(merged)

    seen = compare(merged, base, adapter)

    assert set(verdicts(seen)) <= {Verdict.ROUNDED, Verdict.UNKNOWN}
    assert not any(layer.on_grid for layer in seen.layers)
    assert list(findings_of(seen)) == []
    assert any(note.startswith("the base was unpacked from few bits before the merge") for note in notes_of(seen))


def test_a_merge_into_packed_weights_was_rounded_with_them(folders):
    merged, base, adapter = folders
    packed = PeftModel.from_pretrained(load(base, quantization_config=tiny.quantization("nf4")), adapter)
    packed.merge_and_unload().dequantize().save_pretrained(merged)

    seen = compare(merged, base, adapter)

    assert all(layer.on_grid for layer in seen.layers)
    assert "14 adapted weights with values of 4-bit packing" in " ".join(findings_of(seen))


def test_a_packed_folder_says_so(folders):
    merged, base, adapter = folders
    PeftModel.from_pretrained(
        load(base, quantization_config=tiny.quantization("nf4")), adapter
    ).merge_and_unload().save_pretrained(merged)

    assert "the merged weights are packed" in " ".join(findings_of(compare(merged, base, adapter)))


def test_tensors_that_are_missing_or_have_another_shape(folders):
    merged, base, adapter = folders
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(merged)
    tensors = load_file(merged / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.embed_tokens.weight"] = torch.zeros(300, 256, dtype=torch.bfloat16)
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})

    seen = compare(merged, base, adapter)

    assert (seen.missing, seen.reshaped) == (("model.norm.weight",), ("model.embed_tokens.weight",))


def test_a_weight_that_was_trained_without_an_adapter(folders):
    merged, base, adapter = folders
    model = PeftModel.from_pretrained(load(base), adapter).merge_and_unload()
    model.model.norm.weight.data *= 1.1
    model.save_pretrained(merged)

    assert list(findings_of(compare(merged, base, adapter))) == [
        "1 weight without an adapter differ from the base: model.norm.weight"
    ]


def test_modules_that_the_adapter_saves_whole_are_its_own(tmp_path):
    base = base_of(tmp_path / "base")
    adapter = adapter_of(base, tmp_path / "adapter", modules_to_save=["lm_head"])
    file = adapter / "adapter_model.safetensors"
    save_file({name: t * 2 if "lm_head" in name else t for name, t in load_file(file).items()}, file)
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(tmp_path / "merged")

    assert list(findings_of(compare(tmp_path / "merged", base, adapter))) == []


def test_an_untrained_adapter_cannot_be_seen(tmp_path):
    base = base_of(tmp_path / "base")
    adapter = adapter_of(base, tmp_path / "adapter", size=1e-9)
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(tmp_path / "merged")

    assert verdicts(compare(tmp_path / "merged", base, adapter)) == {Verdict.TOO_SMALL: LAYERS}


def command(*arguments):
    run = [sys.executable, "-m", "kbitlint", "merged", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, check=False)


def test_the_command_needs_no_torch_and_finds_the_base_by_itself(folders):
    merged, base, adapter = folders
    shutil.copytree(base, merged)

    lost = command(merged, "--adapter", adapter)
    as_json = command(merged, "--adapter", adapter, "--base", base, "--format", "json")

    assert (lost.returncode, lost.stderr) == (1, "")
    assert "do not hold the adapter" in " ".join(lost.stdout.split())
    assert json.loads(as_json.stdout)["layers"][0]["verdict"] == "the base without the adapter"


@pytest.mark.parametrize(("lost", "problem"), [("base", "holds no weights"), ("adapter", "holds no adapter")])
def test_a_folder_without_its_files_is_named(folders, lost, problem):
    merged, base, adapter = folders
    shutil.copytree(base, merged)
    for file in {"base": base, "adapter": adapter}[lost].glob("*.safetensors"):
        file.unlink()

    with pytest.raises(TargetError, match=problem):
        compare(merged, base, adapter)
    assert command(merged, "--adapter", adapter, "--base", base).returncode == 2


def test_a_row_on_a_grid():
    packed = [float(index % 16) for index in range(128)]

    assert is_on_grid(packed)
    assert not is_on_grid([float(index) for index in range(128)])
    assert not is_on_grid([0.0] * 128)
    assert not is_on_grid(packed[:10])
