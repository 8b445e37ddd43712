"""Tiny real checkpoints, quantized loads and training steps for tests."""

from __future__ import annotations

import atexit
import copy
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers.utils import logging

from kbitlint.extras import load_bitsandbytes
from kbitlint.model.batch import loss_of, training_batch

load_bitsandbytes("the tests")
logging.set_verbosity_error()
logging.disable_progress_bar()

VOCAB = 256
TRANSFORMERS_5 = int(transformers.__version__.split(".")[0]) >= 5
#: the reason for which tests of Mixtral's stacked experts need transformers 5
LISTED = "transformers 4 keeps Mixtral's experts in lists of Linear layers, which are quantized and adapted"
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def _config(name, **values):
    return getattr(transformers, name)(**values)


def _llava():
    vision = _config(
        "CLIPVisionConfig",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=16,
    )
    return _config(
        "LlavaConfig", vision_config=vision, text_config=_config("LlamaConfig", **_TEXT), image_token_index=250, pad_token_id=0
    )


def _bamba():
    return _config(
        "BambaConfig",
        **_TEXT,
        mamba_n_heads=8,
        mamba_d_head=16,
        mamba_n_groups=2,
        mamba_d_state=16,
        mamba_chunk_size=8,
        attn_layer_indices=[1],
    )


def _siglip_llava():
    vision = _config(
        "SiglipVisionConfig",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=16,
    )
    return _config(
        "LlavaConfig", vision_config=vision, text_config=_config("LlamaConfig", **_TEXT), image_token_index=250, pad_token_id=0
    )


#: family -> (class, config): the kinds of architecture that most upstream issues are about
FAMILIES = {
    "llama": ("LlamaForCausalLM", lambda: _config("LlamaConfig", **_TEXT)),
    "phi3 (fused QKV)": ("Phi3ForCausalLM", lambda: _config("Phi3Config", **_TEXT)),
    "gpt_neox (fused QKV, LayerNorm)": (
        "GPTNeoXForCausalLM",
        lambda: _config("GPTNeoXConfig", **{k: v for k, v in _TEXT.items() if k != "num_key_value_heads"}),
    ),
    "gpt2 (Conv1D)": (
        "GPT2LMHeadModel",
        lambda: _config("GPT2Config", n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=VOCAB, pad_token_id=0),
    ),
    "opt": (
        "OPTForCausalLM",
        lambda: _config(
            "OPTConfig",
            hidden_size=64,
            ffn_dim=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=VOCAB,
            max_position_embeddings=128,
            word_embed_proj_dim=64,
            pad_token_id=0,
        ),
    ),
    "gemma3 (1 + weight)": (
        "Gemma3ForCausalLM",
        lambda: _config("Gemma3TextConfig", **_TEXT, head_dim=16, sliding_window=8),
    ),
    "t5 (encoder-decoder)": (
        "T5ForConditionalGeneration",
        lambda: _config(
            "T5Config",
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            vocab_size=VOCAB,
            decoder_start_token_id=0,
            pad_token_id=0,
        ),
    ),
    "bart (encoder-decoder)": (
        "BartForConditionalGeneration",
        lambda: _config(
            "BartConfig",
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            vocab_size=VOCAB,
            max_position_embeddings=128,
            pad_token_id=0,
            decoder_start_token_id=2,
        ),
    ),
    "mixtral (MoE)": (
        "MixtralForCausalLM",
        lambda: _config("MixtralConfig", **_TEXT, num_local_experts=4, num_experts_per_tok=2),
    ),
    "qwen3_moe (MoE, q and k norms)": (
        "Qwen3MoeForCausalLM",
        lambda: _config("Qwen3MoeConfig", **_TEXT, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    ),
    "bamba (SSM hybrid)": ("BambaForCausalLM", _bamba),
    "llava (vision-language)": ("LlavaForConditionalGeneration", _llava),
}
#: architectures with a peculiarity that single tests need
OTHERS = {
    "bert (classifier)": (
        "BertForSequenceClassification",
        lambda: _config(
            "BertConfig",
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            vocab_size=VOCAB,
            num_labels=3,
        ),
    ),
    "whisper (reads sound)": (
        "WhisperForConditionalGeneration",
        lambda: _config(
            "WhisperConfig",
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            vocab_size=VOCAB,
            num_mel_bins=16,
            max_source_positions=32,
            max_target_positions=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        ),
    ),
    "llama (tied)": ("LlamaForCausalLM", lambda: _config("LlamaConfig", **_TEXT, tie_word_embeddings=True)),
    "llama (classifier)": ("LlamaForSequenceClassification", lambda: _config("LlamaConfig", **_TEXT, num_labels=3)),
    "llama (reward model)": (
        "LlamaForSequenceClassification",
        lambda: _config("LlamaConfig", **_TEXT, num_labels=1),
    ),
    "llava (siglip)": ("LlavaForConditionalGeneration", _siglip_llava),
    "gpt_oss (experts stacked by every version)": (
        "GptOssForCausalLM",
        lambda: _config("GptOssConfig", **_TEXT, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8),
    ),
    "deepseek_v32 (indexer)": (
        "DeepseekV32ForCausalLM",
        lambda: _config(
            "DeepseekV32Config",
            **{**_TEXT, "num_key_value_heads": 4},
            moe_intermediate_size=64,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_shared_experts=1,
            n_group=1,
            topk_group=1,
            kv_lora_rank=32,
            q_lora_rank=32,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=16,
            index_topk=8,
            index_head_dim=16,
            index_n_heads=4,
            first_k_dense_replace=1,
        ),
    ),
}


#: the folder of the checkpoints, which the processes that a process starts share with it
if "TINY_CHECKPOINTS" not in os.environ:
    os.environ["TINY_CHECKPOINTS"] = tempfile.mkdtemp(prefix="kbitlint-tiny-")
    _OWNER = os.getpid()
    atexit.register(lambda: os.getpid() == _OWNER and shutil.rmtree(os.environ["TINY_CHECKPOINTS"], ignore_errors=True))


@functools.cache
def checkpoint(family="llama", dtype=torch.bfloat16):
    """Return a folder with a tiny random checkpoint of a family, which the first process that asks for it makes."""
    known = FAMILIES | OTHERS
    name, config = known[family]
    number = f"{list(known).index(family)}-{dtype.itemsize}-{dtype == torch.bfloat16:d}"  # no word that a rule could read
    made = Path(os.environ["TINY_CHECKPOINTS"], f"kbitlint-tiny-{number}")
    if not made.exists():
        folder = Path(tempfile.mkdtemp(dir=made.parent))
        torch.manual_seed(0)
        chosen = config()
        chosen.architectures = [name]
        getattr(transformers, name)._from_config(chosen, dtype=dtype).save_pretrained(folder)
        try:
            folder.rename(made)
        except OSError:  # another process was first
            shutil.rmtree(folder)
    return made


def quantization(kind="nf4", compute=torch.bfloat16, **further):
    if kind == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, **further)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=compute, **further
    )


def load(family="llama", kind="nf4", dtype=torch.bfloat16, compute=None, device="cpu", **further):
    """Load a checkpoint of a family, quantized on a device. ``kind`` is nf4, fp4, int8 or none."""
    arguments = {} if kind == "none" else {"quantization_config": quantization(kind, compute or dtype, **further)}
    cls = getattr(transformers, (FAMILIES | OTHERS)[family][0])
    return cls.from_pretrained(checkpoint(family), device_map={"": device}, dtype=dtype, **arguments)


def prepared(family="llama", kind="nf4", **arguments):
    """Return a quantized model after ``kbitlint.fix`` with unsafe fixes, in which kbitlint finds nothing.

    It is a copy, without a journal, of one that is fixed once a process: a fix takes ten times as long as a copy.
    """
    return copy.deepcopy(_prepared(family, kind, **arguments))


@functools.cache
def _prepared(family, kind, **arguments):
    import kbitlint

    model = load(family, kind, **arguments)
    kbitlint.fix(model, unsafe=True)
    return model


def with_lora(model, **overrides):
    """Attach LoRA to every quantized layer, with both factors random so that both get gradients."""
    import bitsandbytes
    from peft import LoraConfig, get_peft_model

    quantized = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    targets = sorted({name for name, module in model.named_modules() if isinstance(module, quantized)})
    values = {"r": 4, "target_modules": targets or "all-linear", "init_lora_weights": False, **overrides}
    return get_peft_model(model, LoraConfig(**values))


@dataclass
class Step:
    """The outcome of one real forward and backward pass."""

    error: str | None
    loss: float | None
    arrived: tuple[str, ...]
    """Trainable parameters with a finite gradient."""
    missing: tuple[str, ...]
    """Trainable parameters without a gradient, or with one that is not finite."""

    @property
    def trains(self):
        """Whether every trainable parameter has a finite gradient. A gradient of zeros counts: compare those yourself."""
        return self.error is None and not self.missing and bool(self.arrived)


def step(model, *, train=True, seed=0):
    """Run one real forward and backward pass. A RuntimeError is an outcome, and is not raised."""
    torch.manual_seed(seed)
    if train:
        model.train()
    model.zero_grad(set_to_none=True)
    try:
        loss = loss_of(model(**training_batch(model, next(model.parameters()).device)))
        loss.backward()
    except RuntimeError as error:
        return Step(str(error).splitlines()[0], None, (), ())
    trainable = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    arrived = tuple(name for name, gradient in trainable.items() if gradient is not None and bool(gradient.isfinite().all()))
    return Step(None, float(loss.detach()), arrived, tuple(name for name in trainable if name not in arrived))


def bind_reentrant(model, **kwargs):
    """Bind torch's checkpoint function to every layer, with these keywords only."""
    from kbitlint.model.layers.adapters import base_of

    function = functools.partial(torch.utils.checkpoint.checkpoint, **kwargs)
    base_of(model)._set_gradient_checkpointing(True, function)


def codes(report):
    """Return the (code, path) of every violation."""
    return {(violation.code, violation.at.path) for violation in report.violations}


def state(model, *, addresses=True):
    """Return everything that a fix may change: values, dtypes, storages, flags, modes, hooks in order, config.

    ``addresses=False`` leaves out the addresses of storages.
    """
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    modules = {
        name: (
            module.training,
            {key: value for key, value in module.__dict__.items() if "checkpointing" in key or key == "compute_dtype"},
            {kind: list(module.__dict__[kind].items()) for kind in hooks},
            module.__dict__.get("_require_grads_hooks"),
        )
        for name, module in model.named_modules()
    }
    tensors = {
        name: (
            tensor.dtype,
            tensor.data_ptr() if addresses else None,
            tensor.requires_grad,
            tuple(tensor.shape),
            hash(tensor.detach().view(-1).view(torch.uint8).numpy().tobytes()),
        )
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    return modules, tensors, model.config.to_json_string()


def adapters_base(model):
    """Return the transformers model below PEFT."""
    from kbitlint.model.layers.adapters import base_of

    return base_of(model)
