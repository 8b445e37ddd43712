"""Root causes of the second list that lie in layers, weights and dtypes, each on a tiny model beside a real step.

A test is named after the id of its cause; ``test_model_causes.py`` counts them.
"""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from cause_cases import LAYERS, LLAVA, Q_PROJ, adapted, built, each, logits, said, said_of_files
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from script_cases import findings as said_of_script

import kbitlint
from kbitlint.context import Strategy

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the second list was stated for transformers 5")


def test_requested_target_not_attached():
    """PEFT raises only if nothing matches; a loop that unfreezes by name forgets the factors of embeddings."""
    model = adapted(tiny.load(), target_modules=["q_proj", "does_not_exist"], modules_to_save=["embed_tokns"])
    assert said(model, "KB601") == each("KB601", ["does_not_exist", "embed_tokns"], "warning")
    assert {name.split(".")[-4] for name in tiny.step(model).arrived} == {"q_proj"}

    model = adapted(tiny.load(), target_modules=["q_proj", "embed_tokens"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_A" in name or "lora_B" in name
    assert said(model, "KB632") == [("KB632", "model.embed_tokens", "warning")]
    assert not any("embed" in name for name in tiny.step(model).arrived)


# ------------------------------------------------------------------------------------------------ bytes and dtypes


@pytest.mark.parametrize("cast", ["head", "output"])
def test_lm_head_cast_without_input_cast(cast):
    model = tiny.load()
    if cast == "head":
        model.lm_head = model.lm_head.float()
    else:
        model.model.norm.float()
        model.lm_head = _CastOutputToFloat(model.lm_head)
    place = "lm_head" if cast == "head" else "lm_head.0"

    assert said(adapted(model), "KB102") == [("KB102", place, "warning")]
    assert said(adapted(model), "KB102", autocast_dtype="float32") == [("KB102", place, "error")]
    assert "same dtype" in tiny.step(adapted(model)).error


class _CastOutputToFloat(torch.nn.Sequential):
    def forward(self, hidden):
        return super().forward(hidden).float()


@pytest.mark.parametrize("cast", [torch.float16, torch.float32, None])
def test_float_quant_storage_corrupted_by_cast(cast):
    before = logits(tiny.load())
    model = adapted(tiny.load(bnb_4bit_quant_storage=torch.bfloat16))
    packed = [name for name, parameter in model.named_parameters() if type(parameter).__name__ == "Params4bit"]
    if cast is not None:
        for name in packed:
            parameter = model.get_parameter(name)
            parameter.data = parameter.data.to(cast)

    layers = [name.removeprefix("base_model.model.").removesuffix(".weight") for name in packed]
    assert sorted(said(model, "KB123")) == (sorted(each("KB123", layers, "error")) if cast is not None else [])
    if cast is torch.float32:
        assert "is invalid for input of size" in tiny.step(model).error
    else:
        assert tiny.step(model).error is None
        assert bool((logits(model) - before).abs().max() > before.abs().max() / 2) is (cast is not None)


def test_tied_weights_broken_by_reassignment():
    model = tiny.load("llama (tied)")
    assert said(model, "KB205") == []
    prepare_model_for_kbit_training(model)
    assert said(model, "KB205") == []

    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)

    assert model.config.tie_word_embeddings
    assert said(model, "KB205") == [("KB205", "lm_head", "warning")]
    model.tie_weights()
    assert said(model, "KB205") == []


def test_fsdp2_mixed_trainable_dtypes():
    """What FSDP2 makes of it is held against real ranks in ``tests/integrations/test_ranks.py``."""
    quantized = {"bnb_4bit_quant_storage": torch.bfloat16}
    mixed = adapted(tiny.load(**quantized), target_modules="all-linear", modules_to_save=["input_layernorm"])

    assert said(mixed, "KB703", strategy=Strategy.FSDP2) == each("KB703", LAYERS, "error")
    alone = adapted(tiny.load(**quantized), target_modules="all-linear")
    assert said(alone, "KB703", strategy=Strategy.FSDP2) == []


# ------------------------------------------------------------------------------------------------------ quantization


def test_biased_task_head_quantized(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.RobertaConfig(**sizes, vocab_size=256)
    model = built(transformers.RobertaForSequenceClassification, config, tmp_path)
    task = LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["query", "value"])

    assert said(model, "KB505") == [("KB505", "classifier", "warning")]
    with pytest.raises(RuntimeError, match="only Tensors of floating point dtype"):
        get_peft_model(model, task)

    model = built(transformers.RobertaForSequenceClassification, config, tmp_path, llm_int8_skip_modules=["classifier"])
    assert said(model, "KB505") == []
    assert tiny.step(get_peft_model(model, task)).trains


@pytest.mark.parametrize(
    ("skipped", "dead"),
    [(["vision_tower"], ["model.vision_tower"]), (["model.vision_tower", "lm_head"], []), ([".*vision_tower", "lm_head"], [])],
)
def test_skip_modules_prefix_mismatch(skipped, dead):
    model = tiny.load(LLAVA, llm_int8_skip_modules=skipped)

    assert said(model, "KB124") == each("KB124", dead, "warning")
    packed = {name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert any("vision_tower" in name for name in packed) is bool(dead)
    assert ("lm_head" in packed) is bool(dead)


def test_bnb_config_argument_typo_ignored():
    load = "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_type='bfloat16', bnb_4bit_use_double_quantization=True)\n"

    assert [severity for severity, _, _ in said_of_script("KB521", f"config = {load}")] == ["warning"] * 2
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_compute_type="bfloat16", bnb_4bit_use_double_quantization=True
    )
    assert (config.bnb_4bit_compute_dtype, config.bnb_4bit_use_double_quant) == (torch.float32, False)


def test_modules_to_save_packed_weight_silent(tmp_path):
    model = tiny.load(llm_int8_skip_modules=["k_proj"], bnb_4bit_quant_storage=torch.bfloat16)
    model = adapted(model, modules_to_save=["lm_head"], init_lora_weights=False)
    copy = "lm_head.modules_to_save.default"

    assert said(model, "KB509") == [("KB509", copy, "error")]
    assert tiny.step(model).missing == (f"base_model.model.{copy}.weight",)
    model.save_pretrained(tmp_path)
    weight = "adapter_model.safetensors base_model.model.lm_head.weight"
    assert said_of_files(tmp_path, "KB509", "KB626") == [("KB509", weight, "error")]


def test_no_layer_actually_quantized():
    model = tiny.load(llm_int8_skip_modules=["model", "lm_head"])

    assert said(model, "KB501") == [("KB501", "", "warning")]
    assert not any(type(module).__name__ == "Linear4bit" for module in model.modules())


def test_stale_kbit_flags_after_dequantize():
    model = tiny.load().dequantize()

    assert (model.is_loaded_in_4bit, model.is_quantized) == (True, False)
    (found,) = kbitlint.check(model, select="KB501").violations
    assert found.message == "no layer is quantized, although the model is recorded as bitsandbytes"


def test_tied_head_linear4bit_holding_float():
    model = tiny.load("llama (tied)", llm_int8_skip_modules=["visual"])

    assert said(model, "KB506") == [("KB506", "lm_head", "error")]
    with pytest.raises(AssertionError):
        tiny.step(model)


def test_packed_weight_without_quant_state():
    """A layer that was never moved has none yet; one whose weight was replaced has lost it."""
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(64, 64)
    with pytest.raises(AssertionError):
        layer(torch.randn(2, 64))
    assert said(torch.nn.Sequential(layer), "KB506") == [("KB506", "0", "warning")]

    model = tiny.load()
    projection = model.model.layers[0].self_attn.q_proj
    projection.weight.quant_state = projection.quant_state = None
    assert said(model, "KB822") == [("KB822", Q_PROJ[0], "error")]
    with pytest.raises(ValueError, match="quant_state is required"):
        tiny.step(adapted(model, target_modules=["k_proj"]))


def test_weight_read_directly_but_packed(tmp_path):
    config = transformers.MambaConfig(hidden_size=64, state_size=8, num_hidden_layers=2, vocab_size=256)
    model = built(transformers.MambaForCausalLM, config, tmp_path)

    assert said(model, "KB503") == [("KB503", "backbone.layers.0.mixer.dt_proj", "error")]
    assert tiny.step(adapted(model, target_modules=["in_proj"])).error is not None


def test_linear_subclass_silently_not_quantized():
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    model = tiny.load(kind="none")
    model.model.layers[0].mlp.up_proj.__class__ = type("Router", (torch.nn.Linear,), {})
    kept = replace_with_bnb_linear(model, ["lm_head"], tiny.quantization())
    assert type(kept.model.layers[0].mlp.up_proj).__name__ == "Router"

    model = tiny.load()
    weight = torch.nn.Linear(64, 128, bias=False, dtype=torch.bfloat16)
    weight.__class__ = type("Router", (torch.nn.Linear,), {})
    model.model.layers[0].mlp.up_proj = weight
    assert said(model, "KB510") == [("KB510", "model.layers.0.mlp.up_proj", "info")]
