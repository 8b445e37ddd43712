"""Tiny denoisers of diffusers: transformers and UNets, quantized as `replace_with_bnb_linear` does it, with adapters."""

from __future__ import annotations

import bitsandbytes as bnb
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

HEADS = {"attention_head_dim": 16, "num_attention_heads": 2}
UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (32, 64),
    "norm_num_groups": 8,
}
CROSS = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}

#: name -> (class of diffusers, its arguments)
DENOISERS = {
    "flux": (
        "FluxTransformer2DModel",
        {
            **HEADS,
            "patch_size": 1,
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "axes_dims_rope": [4, 4, 8],
        },
    ),
    "flux-guided": (
        "FluxTransformer2DModel",
        {
            **HEADS,
            "patch_size": 1,
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "axes_dims_rope": [4, 4, 8],
            "guidance_embeds": True,
        },
    ),
    "sd3": (
        "SD3Transformer2DModel",
        {
            **HEADS,
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 32,
        },
    ),
    "sd15": ("UNet2DConditionModel", {**UNET, **CROSS, "cross_attention_dim": 32, "attention_head_dim": 8}),
    "sdxl": (
        "UNet2DConditionModel",
        {
            **UNET,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 64,
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "transformer_layers_per_block": (1, 1),
            "projection_class_embeddings_input_dim": 80,
        },
    ),
    "sana": (
        "SanaTransformer2DModel",
        {
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 1,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 32,
            "sample_size": 16,
            "patch_size": 1,
        },
    ),
    "wan": (
        "WanTransformer3DModel",
        {
            "patch_size": (1, 2, 2),
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 16,
            "freq_dim": 32,
            "ffn_dim": 32,
            "num_layers": 1,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "rope_max_seq_len": 32,
        },
    ),
    "hunyuan-video": (
        "HunyuanVideoTransformer3DModel",
        {
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "patch_size": 2,
            "patch_size_t": 1,
            "text_embed_dim": 16,
            "pooled_projection_dim": 8,
            "rope_axes_dim": (4, 4, 8),
        },
    ),
    "cogvideox": (
        "CogVideoXTransformer3DModel",
        {
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 16,
            "num_layers": 1,
            "sample_width": 16,
            "sample_height": 16,
            "sample_frames": 5,
            "patch_size": 2,
            "temporal_compression_ratio": 4,
            "max_text_seq_length": 8,
        },
    ),
    "ltx": (
        "LTXVideoTransformer3DModel",
        {**HEADS, "in_channels": 8, "out_channels": 8, "cross_attention_dim": 32, "num_layers": 1, "caption_channels": 32},
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        {
            **HEADS,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 1,
            "cross_attention_dim": 32,
            "sample_size": 16,
            "patch_size": 2,
            "caption_channels": 32,
        },
    ),
    "qwen-image": (
        "QwenImageTransformer2DModel",
        {
            **HEADS,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "joint_attention_dim": 16,
            "axes_dims_rope": (4, 6, 6),
        },
    ),
    "mochi": (
        "MochiTransformer3DModel",
        {
            **HEADS,
            "patch_size": 2,
            "num_layers": 2,
            "pooled_projection_dim": 32,
            "in_channels": 4,
            "text_embed_dim": 32,
            "time_embed_dim": 4,
            "max_sequence_length": 16,
        },
    ),
    "lumina2": (
        "Lumina2Transformer2DModel",
        {
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "hidden_size": 24,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 3,
            "num_kv_heads": 1,
            "multiple_of": 2,
            "axes_dim_rope": (4, 2, 2),
            "axes_lens": (64, 64, 64),
            "cap_feat_dim": 32,
        },
    ),
    "auraflow": (
        "AuraFlowTransformer2DModel",
        {
            **HEADS,
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 64,
        },
    ),
}


def denoiser(name):
    """Return a tiny denoiser in bfloat16 with its attention and feed-forward layers in nf4."""
    import diffusers

    cls, arguments = DENOISERS[name]
    torch.manual_seed(0)
    model = getattr(diffusers, cls)(**arguments)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.bfloat16)
    return quantized(model, leave=("time", "embed", "proj_out"))


def quantized(model, leave=()):
    """Replace the linear layers of a module by nf4 ones, those apart whose path holds a word of ``leave``."""
    for path, module in list(model.named_modules()):
        if type(module) is not nn.Linear or any(word in path for word in leave):
            continue
        packed = bnb.nn.Linear4bit(
            module.in_features, module.out_features, module.bias is not None, torch.bfloat16, quant_type="nf4"
        )
        packed.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4")
        packed.bias = None if module.bias is None else nn.Parameter(module.bias.data)
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, packed.to("cpu"))
    return model


def with_adapters(model):
    """Attach LoRA to every quantized layer: by ``add_adapter`` where a class has it, else by PEFT's own function."""
    targets = [path for path, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)]
    config = LoraConfig(r=4, init_lora_weights=False, target_modules=targets)
    if hasattr(model, "add_adapter"):
        model.add_adapter(config)
        return model
    return inject_adapter_in_model(config, model)
