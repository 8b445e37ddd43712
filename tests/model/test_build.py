"""Where a model comes from: remote code, classes, dtypes, and methods that need a package of their own."""

from __future__ import annotations

import json
import textwrap

import pytest
import tiny
import torch

import kbitlint
from kbitlint.errors import TargetError
from kbitlint.model.build.checkpoint_config import Source, dtype_of, model_class
from kbitlint.model.build.factory import call_factory
from kbitlint.model.build.meta import attach_adapter, build, instantiate


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A checkpoint that brings its own code: a Llama under another name."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / "configuration_own.py").write_text(
        textwrap.dedent("""
            from transformers import LlamaConfig

            class OwnConfig(LlamaConfig):
                model_type = "own_llama"
        """)
    )
    (folder / "modeling_own.py").write_text(
        textwrap.dedent("""
            from transformers import LlamaForCausalLM
            from .configuration_own import OwnConfig

            class OwnForCausalLM(LlamaForCausalLM):
                config_class = OwnConfig
        """)
    )
    config = tiny._TEXT | {
        "model_type": "own_llama",
        "dtype": "bfloat16",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_remote_code_runs_where_it_is_trusted(run, remote):
    refused = run("check", remote, "--quantize", "nf4")
    trusted = run("check", remote, "--quantize", "nf4", "--trust-remote-code")

    assert (refused.exit_code, "asks for remote code, which is never run" in refused.stderr) == (2, True)
    assert (trusted.exit_code, "OwnForCausalLM 106.8K, bitsandbytes nf4 on 14 layers" in " ".join(trusted.output.split())) == (
        1,
        True,
    )


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        (["T5ForConditionalGeneration"], "T5ForConditionalGeneration"),
        (["T5EncoderModel"], "T5EncoderModel"),
        (["NotInTheLibrary"], "T5ForConditionalGeneration"),
        (None, "T5ForConditionalGeneration"),
    ],
)
def test_the_class_is_the_one_that_architectures_names(architectures, expected):
    import transformers

    config = transformers.T5Config(architectures=architectures)

    assert model_class(config, Source("x")).__name__ == expected


def test_a_config_that_fits_no_class_is_one_line():
    import transformers

    class Unknown(transformers.PretrainedConfig):
        model_type = "unknown"

    with pytest.raises(kbitlint.KbitlintError) as refused:
        model_class(Unknown(architectures=["Nothing"]), Source("folder"))

    line = "folder: no model class of the installed transformers fits its config (config.json names Nothing)"
    assert str(refused.value) == line


def test_the_dtype_is_what_loading_would_choose():
    import transformers

    half, none = transformers.LlamaConfig(dtype="bfloat16"), transformers.LlamaConfig()

    chosen = [dtype_of(config, quantized=quantized) for config in (half, none) for quantized in (True, False)]

    version_4 = [torch.float16, torch.float32, torch.float16, torch.float32]
    assert chosen == ([torch.bfloat16, torch.bfloat16, torch.float32, torch.float32] if tiny.TRANSFORMERS_5 else version_4)


@pytest.mark.parametrize("kind", ["nf4", "int8", "none"])
@pytest.mark.parametrize("family", ["llama", "t5 (encoder-decoder)"])
def test_on_meta_every_dtype_is_the_one_that_loading_gives(family, kind):
    """transformers 4 loads packed layers beside float16 where nobody names a dtype, and keeps T5's ``wo`` in float32."""
    import transformers

    folder = tiny.checkpoint(family)
    quantization = {} if kind == "none" else {"quantization_config": tiny.quantization(kind)}
    cls = getattr(transformers, tiny.FAMILIES[family][0])
    loaded = cls.from_pretrained(folder, device_map={"": "cpu"}, **quantization)

    made = build(Source(str(folder)), kind).model

    assert {name: p.dtype for name, p in made.named_parameters()} == {name: p.dtype for name, p in loaded.named_parameters()}
    assert made.config.dtype == loaded.config.dtype


def test_a_config_without_a_dtype_is_said_to_have_none(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny._TEXT | {"model_type": "llama"}))

    (note,) = build(Source(str(tmp_path)), "none").notes

    assert note == "config.json names no dtype, so float32 is assumed"


def test_a_method_whose_package_is_missing_is_one_line(run, tmp_path):
    quantization = {"quant_method": "hqq", "weight_quant_params": {"nbits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(tiny._TEXT | {"model_type": "llama", "quantization_config": quantization}))

    result = run("check", tmp_path)

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "hqq" in result.stderr


def test_a_value_that_no_model_can_have_is_one_line(run, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny._TEXT | {"model_type": "llama", "hidden_size": "wide"}))

    result = run("check", tmp_path)

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"kbitlint: {tmp_path}: ")


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16, torch.float32])
def test_packed_weights_have_their_size_in_every_storage(storage):
    import transformers

    config = transformers.AutoConfig.from_pretrained(tiny.checkpoint())
    quantization = tiny.quantization(bnb_4bit_quant_storage=storage)

    built = instantiate(transformers.LlamaForCausalLM, config, quantization, torch.bfloat16)
    loaded = tiny.load(bnb_4bit_quant_storage=storage)

    def packed(model):
        weights = {name: p for name, p in model.named_parameters() if type(p).__name__ == "Params4bit"}
        return {name: (p.dtype, tuple(p.shape), p.requires_grad) for name, p in weights.items()}

    assert packed(built) == packed(loaded)
    assert {v.code for v in kbitlint.check(built).violations} == {v.code for v in kbitlint.check(loaded).violations}


def _described(model):
    return {name: (type(p).__name__, p.dtype, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("how", [{"use_dora": True}, {"init_lora_weights": "olora"}], ids=["dora", "olora"])
def test_an_adapter_that_unpacks_weights_is_attached_without_them(tmp_path, how, kind):
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **how)
    adapter = tmp_path / "adapter"
    get_peft_model(tiny.load(kind="none"), config).save_pretrained(adapter)

    made = attach_adapter(build(Source(str(tiny.checkpoint())), kind).model, adapter).model
    loaded = PeftModel.from_pretrained(tiny.load(kind=kind), adapter, is_trainable=True)

    assert _described(made) == _described(loaded)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_function_that_attaches_dora_runs_without_weights(kind):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def make():
        model = AutoModelForCausalLM.from_pretrained(
            tiny.checkpoint(), quantization_config=tiny.quantization(kind), device_map={"": "cpu"}
        )
        return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], use_dora=True))

    without = call_factory(make, "train.py:make", meta=True)

    assert {p.device.type for p in without.parameters()} == {"meta"}
    assert _described(without) == _described(call_factory(make, "train.py:make", meta=False))


@pytest.mark.parametrize("adapter", ["BOFT", "SHIRA"])
def test_an_adapter_that_reads_values_is_not_called_unfit(tmp_path, adapter):
    """PEFT attaches both where there are weights, so the reason names their absence."""
    import peft

    configs = {"BOFT": lambda: peft.BOFTConfig(boft_block_size=4), "SHIRA": lambda: peft.ShiraConfig(r=4)}
    config = configs[adapter]()
    config.target_modules = {"q_proj"}
    config.save_pretrained(tmp_path)

    with pytest.raises(TargetError, match="cannot be built without weights"):
        attach_adapter(build(Source(str(tiny.checkpoint())), "nf4").model, tmp_path)


def test_a_model_that_is_nowhere_is_measured_by_its_name_and_not_called_clean(tmp_path):
    values = {"peft_type": "LORA", "base_model_name_or_path": "/home/else/SmolLM2-135M", "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    found = kbitlint.memory("HuggingFaceTB/SmolLM2-135M", quantize="nf4", seq_len=16)
    report = kbitlint.check(str(tmp_path), quantize="nf4", trace=False)

    table = "so it is that of the table of families (HuggingFaceTB/SmolLM2-1.7B, size 135m)"
    note = f"neither a folder, the cache nor the Hub has its config, {table}"
    assert note in found.notes
    assert found.summary.startswith("LlamaForCausalLM 134.5M")
    assert all(state.steps for state in found.states)
    assert [skip.reason for skip in report.skips if skip.unreached] == [note]
    assert report.exit_code() == 2
