"""Root causes of the second list that decide which parameters learn, each on a tiny model beside a real step.

A test is named after the id of its cause; ``test_model_causes.py`` counts them.
"""

from __future__ import annotations

import warnings

import pytest
import tiny
import torch
import transformers
from cause_cases import LAYERS, LLAVA, LORA, Q_PROJ, adapted, built, each, idle, reentrant, said, said_of_files
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the second list was stated for transformers 5")


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
