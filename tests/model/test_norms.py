"""What is a norm, held against lists made by reading the modelling code, not the detector's output."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from kbitlint.model.inspect.walk import collect
from kbitlint.model.layers.norms import dtype_readers, is_norm

#: family -> folded paths of every norm with parameters, read off the modelling code
NORMS = {
    "llama": {"model.layers.*.input_layernorm", "model.layers.*.post_attention_layernorm", "model.norm"},
    "phi3 (fused QKV)": {"model.layers.*.input_layernorm", "model.layers.*.post_attention_layernorm", "model.norm"},
    "gpt_neox (fused QKV, LayerNorm)": {
        "gpt_neox.layers.*.input_layernorm",
        "gpt_neox.layers.*.post_attention_layernorm",
        "gpt_neox.final_layer_norm",
    },
    "gpt2 (Conv1D)": {"transformer.h.*.ln_1", "transformer.h.*.ln_2", "transformer.ln_f"},
    "opt": {
        "model.decoder.layers.*.self_attn_layer_norm",
        "model.decoder.layers.*.final_layer_norm",
        "model.decoder.final_layer_norm",
    },
    "gemma3 (1 + weight)": {
        "model.layers.*.input_layernorm",
        "model.layers.*.post_attention_layernorm",
        "model.layers.*.pre_feedforward_layernorm",
        "model.layers.*.post_feedforward_layernorm",
        "model.layers.*.self_attn.q_norm",
        "model.layers.*.self_attn.k_norm",
        "model.norm",
    },
    "t5 (encoder-decoder)": {
        "encoder.block.*.layer.*.layer_norm",
        "encoder.final_layer_norm",
        "decoder.block.*.layer.*.layer_norm",
        "decoder.final_layer_norm",
    },
    "bart (encoder-decoder)": {
        "model.encoder.layernorm_embedding",
        "model.encoder.layers.*.self_attn_layer_norm",
        "model.encoder.layers.*.final_layer_norm",
        "model.decoder.layernorm_embedding",
        "model.decoder.layers.*.self_attn_layer_norm",
        "model.decoder.layers.*.encoder_attn_layer_norm",
        "model.decoder.layers.*.final_layer_norm",
    },
    "mixtral (MoE)": {"model.layers.*.input_layernorm", "model.layers.*.post_attention_layernorm", "model.norm"},
    "qwen3_moe (MoE, q and k norms)": {
        "model.layers.*.input_layernorm",
        "model.layers.*.post_attention_layernorm",
        "model.layers.*.self_attn.q_norm",
        "model.layers.*.self_attn.k_norm",
        "model.norm",
    },
    "bamba (SSM hybrid)": {
        "model.layers.*.input_layernorm",
        "model.layers.*.pre_ff_layernorm",
        "model.layers.*.mamba.norm",
        "model.final_layernorm",
    },
    "llava (vision-language)": {
        "model.language_model.layers.*.input_layernorm",
        "model.language_model.layers.*.post_attention_layernorm",
        "model.language_model.norm",
        "model.vision_tower.pre_layrnorm",
        "model.vision_tower.encoder.layers.*.layer_norm*",
        "model.vision_tower.post_layernorm",
    },
}


def folded(path):
    import re

    from kbitlint.module_paths import fold

    return re.sub(r"layer_norm[12]$", "layer_norm*", fold(path).replace("vision_model.", ""))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_norm_of_a_family_is_found_and_nothing_else(family):
    assert {folded(norm.path) for norm in collect(tiny.load(family)).norms} == NORMS[family]


class FusedNormKernel(nn.Module):
    """A norm whose code cannot be read: it calls into a compiled extension."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    forward = torch._C._nn.gelu


class MeanSquare(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def scaled(self, x):
        return x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-6, -0.5)

    def forward(self, x):
        return self.scaled(x) * self.gain


class LayerScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.gain


class NoNorm(nn.Module):
    """MobileBERT's: called a norm, and only scales."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return x * self.weight + self.bias


class SteppedNorm(nn.Module):
    """I-BERT's, written out step by step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(1e-5 + torch.mean(centred**2, dim=-1, keepdim=True)) * self.weight


class OwnKernelRMSNorm(nn.Module):
    """Calls a kernel of its own library, as patched models do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return fast_rms_norm_forward(x, self.weight)  # noqa: F821  # it is only read


class NormThenProject(nn.Module):
    """A whole block that has norm in its name, a vector of its own, and a projection inside."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(4))
        self.projection = nn.Linear(4, 4)

    def forward(self, x):
        return self.projection(torch.nn.functional.layer_norm(x, (4,))) + self.bias


class Router(nn.Module):
    """Normalises its input and multiplies it by a matrix of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        return torch.nn.functional.linear(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)), self.weight)


class CumulativeNorm(nn.Module):
    """Normalises each frame by what came before it; a running sum mixes time, not features."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1)[:, None]
        variance = torch.cumsum(x.pow(2).sum(-1, keepdim=True), dim=1) / count
        return x * torch.rsqrt(variance + 1e-6) * self.weight


class ScaledClip(nn.Module):
    """Bounds the length of a vector: a short one passes unchanged, so nothing is normalised."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        x = x * self.scale
        return x * (3.0 / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-6)).clamp(max=1.0)


class FlooredLengthNorm(nn.Module):
    """Divides by the length, which is kept above zero."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6) * self.scale


@pytest.mark.parametrize(
    ("module", "verdict"),
    [
        (nn.LayerNorm(4), True),
        (nn.RMSNorm(4), True),
        (nn.GroupNorm(2, 4), True),
        (nn.BatchNorm2d(4), True),
        (nn.LayerNorm((4, 4)), True),
        (FusedNormKernel(), True),
        (MeanSquare(), True),
        (nn.LayerNorm(4, elementwise_affine=False), False),
        (OwnKernelRMSNorm(), True),
        (SteppedNorm(), True),
        (CumulativeNorm(), True),
        (FlooredLengthNorm(), True),
        (ScaledClip(), False),
        (NoNorm(), False),
        (LayerScale(), False),
        (NormThenProject(), False),
        (Router(), False),
        (nn.Linear(4, 4), False),
        (nn.Embedding(4, 4), False),
        (nn.Conv1d(4, 4, 1), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_norm_is_told_by_what_it_computes(module, verdict):
    assert is_norm(module) is verdict


def test_callers_that_read_a_norms_dtype_are_known():
    class Caller(nn.Module):
        def forward(self, x):
            return self.norm(x.to(dtype=self.norm.weight.dtype))

    class Own(nn.Module):
        def forward(self, x):
            return x.to(self.weight.dtype)

    class Neither(nn.Module):
        def forward(self, x):
            return self.norm(x.to(x.dtype)) * self.norm.weight

    assert [set(dtype_readers(cls)) for cls in (Caller, Own, Neither)] == [{"norm"}, {"self"}, set()]
