"""Root causes of the second list, each built on a tiny model, a folder or a script, beside what really happens with it.

A test is named after the id of its cause, as in ``test_model_causes.py``, which counts them.
"""

from __future__ import annotations

import warnings

import checkpoint_cases
import pytest
import tiny
import torch
import transformers
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from script_cases import findings as said_of_script

import kbitlint
from kbitlint.context import Strategy, TrainingContext

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the second list was stated for transformers 5")

LAYERS = ["model.layers.0", "model.layers.1"]
Q_PROJ = [f"{layer}.self_attn.q_proj" for layer in LAYERS]
LLAVA = "llava (vision-language)"
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


def adapted(model, **config):
    return get_peft_model(model, LoraConfig(**{**LORA, **config}))


def said(model, *codes, optimizer=None, **context):
    """Every violation of these rules, as (code, path, severity)."""
    found = kbitlint.check(model, select=codes, optimizer=optimizer, context=TrainingContext(**context)).violations
    return [(v.code, v.at.path, v.severity.value) for v in found]


def said_of_files(folder, *codes):
    """Every violation of these rules in the files of a folder, as (code, place, severity)."""
    return [(code, place, severity) for code in codes for severity, place, _ in checkpoint_cases.findings(code, folder)]


def each(code, paths, severity):
    return [(code, path, severity) for path in paths]


def reentrant(model, *, hook=False):
    """The model, frozen, with reentrant checkpoints and perhaps a hook on its text embeddings."""
    model.requires_grad_(requires_grad=False)
    tiny.bind_reentrant(model, use_reentrant=True)
    if hook:
        model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_())
    return model


def built(cls, config, folder, **quantization):
    """A random checkpoint of a class, loaded as nf4 from a folder."""
    torch.manual_seed(0)
    cls._from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    arguments = tiny.quantization(**quantization)
    return cls.from_pretrained(folder, quantization_config=arguments, device_map="cpu", dtype=torch.bfloat16)


def idle(model, batch):
    """The trainable parameters without a gradient after a real step on a batch, or the error."""
    try:
        model.train()(**batch).loss.backward()
    except RuntimeError as error:
        return str(error)
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(1, 21)[None]).logits.float()


# -------------------------------------------------------------------------------------- gradients and checkpoints


def _whisper(folder):
    sizes = {f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in _HALF.items()}
    config = transformers.WhisperConfig(
        d_model=64,
        **sizes,
        vocab_size=256,
        num_mel_bins=16,
        max_source_positions=50,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return built(transformers.WhisperForConditionalGeneration, config, folder)


_HALF = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}


def test_missing_hook_non_text_input(tmp_path):
    """Turning checkpointing on installs no hook on a model whose input is sound."""
    batch = {"input_features": torch.randn(2, 16, 100, dtype=torch.bfloat16), "labels": torch.ones(2, 8, dtype=torch.long)}
    model = _whisper(tmp_path)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    layers = [f"model.{half}.layers.{number}" for half in ("decoder", "encoder") for number in (0, 1)]

    assert said(adapted(model), "KB301") == each("KB301", layers, "error")
    assert "does not require grad" in idle(adapted(model), batch)

    model = _whisper(tmp_path)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert said(adapted(model), "KB301") == []
    assert idle(adapted(model), batch) == []


def test_input_hook_masks_zero_trainable():
    model = prepare_model_for_kbit_training(adapted(tiny.load()))

    assert said(model, "KB202") == [("KB202", "", "error")]
    step = tiny.step(model)
    assert (step.error, step.arrived) == (None, ())


class _ByKeyword(transformers.LlamaModel):
    """Passes the hidden states to its layers by keyword, as Mllama's vision encoder does."""

    def forward(self, input_ids=None, attention_mask=None, **_):  # noqa: ARG002  # the model passes it
        hidden = self.embed_tokens(input_ids)
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = self.rotary_emb(hidden, position_ids=positions)
        for layer in self.layers:
            hidden = layer(hidden_states=hidden, position_embeddings=rotary, position_ids=positions)
        return transformers.modeling_outputs.BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


@pytest.mark.parametrize("reenters", [True, False])
def test_reentrant_tensors_as_kwargs(reenters):
    model = tiny.load()
    model.model.__class__ = _ByKeyword
    prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": reenters})
    model = adapted(model, init_lora_weights=False)

    assert said(model, "KB301") == (each("KB301", LAYERS, "error") if reenters else [])
    step = tiny.step(model)
    assert ("does not require grad" in step.error) if reenters else step.trains


def test_prefix_tuning_with_checkpointing():
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ValueError, match="PREFIX_TUNING does not work with gradient checkpointing"):
        get_peft_model(prepare_model_for_kbit_training(tiny.load()), config)
    model = get_peft_model(prepare_model_for_kbit_training(tiny.load(), use_gradient_checkpointing=False), config)
    assert said(model, "KB404") == [("KB404", "config", "info")] or said(model, "KB404") == []

    model.base_model.gradient_checkpointing_enable()

    assert said(model, "KB404") == [("KB404", "", "error")]
    assert "must match the size" in tiny.step(model).error


def test_old_format_checkpointing_ignores_kwargs():
    """The class takes the flag alone, so that its own call of ``checkpoint`` decides, which reenters."""
    model = tiny.load()
    model.requires_grad_(requires_grad=False)
    model.__class__, model.model.__class__ = _OldFormat, _OldModel
    model.gradient_checkpointing_enable({"use_reentrant": False})

    assert said(model, "KB401") == [("KB401", "model", "warning")]
    with pytest.warns(UserWarning, match="use_reentrant parameter should be passed explicitly"):
        assert tiny.step(adapted(model, init_lora_weights=False)).trains, "the hook of transformers 5 feeds it"
    model.disable_input_require_grads()
    assert said(adapted(model), "KB301") == [("KB301", "model", "error")]
    assert "does not require grad" in tiny.step(adapted(model)).error


class _OldModel(transformers.LlamaModel):
    def forward(self, input_ids=None, attention_mask=None, **_):  # noqa: ARG002  # the model passes it
        hidden = self.embed_tokens(input_ids)
        rotary = self.rotary_emb(hidden, position_ids=torch.arange(hidden.shape[1], device=hidden.device)[None])
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden = torch.utils.checkpoint.checkpoint(layer, hidden, None, None, None, False, rotary)
            else:
                hidden = layer(hidden, position_embeddings=rotary)
        return transformers.modeling_outputs.BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


class _OldFormat(transformers.LlamaForCausalLM):
    def _set_gradient_checkpointing(self, module, value=False):  # noqa: FBT002  # the signature of the old format
        if isinstance(module, _OldModel):
            module.gradient_checkpointing = value


def test_reentrant_grad_loss_hidden_by_trainable_head():
    model = adapted(reentrant(tiny.load()), target_modules=["q_proj"], modules_to_save=["lm_head"])

    assert said(model, "KB301") == each("KB301", LAYERS, "error")
    step = tiny.step(model)
    assert (step.error, [name for name in step.arrived if "lora" in name]) == (None, [])


@pytest.mark.parametrize("hook", [True, False])
def test_vlm_vision_lora_no_grad(hook):
    """A hook on the text embeddings feeds the text alone; PEFT's prepare hooks the patches as well."""
    model = tiny.load(LLAVA)
    model = adapted(reentrant(model, hook=True) if hook else prepare_model_for_kbit_training(model), init_lora_weights=False)
    tower = [f"model.vision_tower.encoder.layers.{number}" for number in (0, 1)]
    ids = torch.randint(0, 249, (2, 12))
    ids[:, 1:5] = 250
    batch = {"input_ids": ids, "labels": ids, "pixel_values": torch.randn(2, 3, 32, 32, dtype=torch.bfloat16)}

    assert said(model, "KB301") == (each("KB301", tower, "warning") if hook else [])
    missing = [name for name in idle(model, batch) if ".encoder.layers.1." not in name]  # LLaVA reads the last layer but one
    assert bool(missing) is hook
    assert all("vision_tower" in name for name in missing)


# ---------------------------------------------------------------------------------------------------- trainability


def test_trainable_adapter_not_active(tmp_path):
    adapted(tiny.load()).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(tiny.load(), tmp_path)
    model.load_adapter(tmp_path, adapter_name="other", is_trainable=True)

    assert said(model, "KB202") == [("KB202", "", "error")]
    assert "does not require grad" in tiny.step(model).error

    model.set_adapter("other")
    assert said(model, "KB202") == []
    assert {name.split(".")[-2] for name in tiny.step(model).arrived} == {"other"}


@pytest.mark.parametrize("name", ["default", "second"])
def test_nested_peft_model(tmp_path, name):
    """Whether the inner adapters train or not, the file of the outer ones fits no base model."""
    inner = adapted(tiny.load(), init_lora_weights=False)
    config = LoraConfig(**LORA, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(inner, config, adapter_name=name)
        model.save_pretrained(tmp_path)
    folder = tmp_path / name if name != "default" else tmp_path

    assert said(model, "KB631") == [("KB631", "", "error")]
    assert [severity for _, _, severity in said_of_files(folder, "KB630")] == ["error"]
    assert bool(tiny.step(model).missing) is (name == "second")
    saved = load_file(folder / "adapter_model.safetensors")
    assert all(tensor.startswith("base_model.model.base_model.model.") for tensor in saved)
    with pytest.warns(UserWarning, match="Found missing adapter keys"):
        loaded = PeftModel.from_pretrained(tiny.load(), folder)
    assert said(loaded, "KB631") == []


def test_lora_on_mha_out_proj_ignored(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": 256, "max_position_embeddings": 64, "pad_token_id": 0}
    config = transformers.SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 16})
    model = built(transformers.SiglipModel, config, tmp_path, llm_int8_skip_modules=[r".*\.head"])
    model = adapted(model, target_modules=["out_proj", "q_proj"], init_lora_weights=False)
    pooled = "vision_model.head.attention.out_proj"

    assert said(model, "KB203") == [("KB203", pooled, "warning")]
    images = torch.randn(2, 3, 32, 32, dtype=torch.bfloat16)
    model.train()(input_ids=torch.ones(2, 8, dtype=torch.long), pixel_values=images).logits_per_image.float().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == [f"base_model.model.{pooled}.lora_{factor}.default.weight" for factor in "AB"]


class _FusedLoss(transformers.LlamaForCausalLM):
    """Computes the loss with the weight of its head, as Liger's and CCE's replacements of the forward do."""

    def forward(self, input_ids=None, labels=None, attention_mask=None, **_):  # the model passes it
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        scores = (hidden.to(self.lm_head.weight.dtype) @ self.lm_head.weight.t()).float()
        loss = torch.nn.functional.cross_entropy(scores.view(-1, scores.shape[-1]), labels.view(-1))
        return transformers.modeling_outputs.CausalLMOutputWithPast(loss=loss, logits=scores)


@pytest.mark.parametrize("fused", [True, False])
def test_head_adapter_bypassed_by_fused_loss(fused):
    model = tiny.load()
    if fused:
        model.__class__ = _FusedLoss
    model = adapted(model, target_modules=["q_proj", "lm_head"], init_lora_weights=False)

    assert said(model, "KB203") == ([("KB203", "lm_head", "warning")] if fused else [])
    assert [("lm_head" in name) for name in tiny.step(model).missing] == [True] * 2 * fused


def test_optimizer_holds_stale_params(tmp_path):
    """PEFT 0.21 gives the adapter new parameters when it loads it again, in float32."""
    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]), autocast_adapter_dtype=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    assert said(model, "KB706", optimizer=optimizer) == []
    model.save_pretrained(tmp_path)
    model.load_adapter(tmp_path, "default", is_trainable=True)

    factors = [f"{layer}.lora_{factor}.default.weight" for layer in Q_PROJ for factor in "AB"]
    assert said(model, "KB706", optimizer=optimizer) == each("KB706", factors, "error")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    tiny.step(model)
    optimizer.step()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


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


# ------------------------------------------------------------------------------------------------------------ folders


def test_adapter_keys_do_not_match_model(tmp_path):
    model = adapted(tiny.load(kind="none"), init_lora_weights=False)
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("model.layers", "language_model.layers"): t for name, t in load_file(file).items()}, file)

    assert {(code, severity) for code, _, severity in said_of_files(tmp_path, "KB623")} == {("KB623", "error")}
    with pytest.warns(UserWarning, match="Found missing adapter keys"):
        PeftModel.from_pretrained(tiny.load(), tmp_path)


def test_lora_b_all_zero_after_training(tmp_path):
    adapted(tiny.load()).save_pretrained(tmp_path)

    assert said_of_files(tmp_path, "KB625") == [("KB625", "adapter_model.safetensors", "warning")]
    assert not any(
        tensor.any() for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items() if "lora_B" in name
    )


def test_prequantized_checkpoint_new_head_init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.load(llm_int8_skip_modules=["lm_head", "k_proj"]).save_pretrained(tmp_path / "packed")
    load = "transformers.AutoModelForSequenceClassification.from_pretrained('packed', device_map='cpu', num_labels=3)"

    assert [severity for severity, _, _ in said_of_script("KB635", f"import transformers\nmodel = {load}\n")] == ["error"]
    with pytest.raises(NotImplementedError, match="Byte"):
        eval(load)  # noqa: S307  # the line of the test

    tiny.load().save_pretrained(tmp_path / "spared")
    load = load.replace("packed", "spared")
    assert said_of_script("KB635", f"import transformers\nmodel = {load}\n") == []
    assert type(eval(load).score).__name__ == "Linear"  # noqa: S307  # the line of the test


# -------------------------------------------------------------------------------------------------------------- ranks


def test_ranks_adapt_different_modules():
    """What DDP makes of it (an average of unrelated gradients) is held against real ranks in ``test_ranks.py``."""
    from kbitlint.integrations.ranks import merge_ranks, seen
    from kbitlint.registry import all_rules

    records = {}
    for rank, target in enumerate(("k_proj", "v_proj")):
        model = adapted(tiny.load(), target_modules=[target])
        context = TrainingContext(strategy=Strategy.DDP)
        records[rank] = seen(model, kbitlint.check(model, select="KB705"), context)
    report = merge_ranks(records, {}, 2, tuple(all_rules()))

    found = {(v.at.path, v.severity.value) for v in report.violations if v.code == "KB705"}
    factors = [
        f"{layer}.self_attn.{side}_proj.lora_{factor}.default.weight" for layer in LAYERS for side in "kv" for factor in "AB"
    ]
    assert found >= {(path, "error") for path in factors}
    assert {severity for _, severity in found} == {"error"}
