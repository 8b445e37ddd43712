"""Modules of no library, as users write them: each has linear layers that are quantized, and a forward of its own."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(48, 96), nn.LayerNorm(96), nn.Linear(96, 8)

    def forward(self, x):
        return self.down(self.norm(self.up(x)).relu())


class Flattening(nn.Module):
    """It flattens all but the samples, so its input has two dimensions."""

    def __init__(self):
        super().__init__()
        self.first, self.normalize, self.last = nn.Linear(48, 64), nn.BatchNorm1d(64), nn.Linear(64, 4)

    def forward(self, x):
        return self.last(self.normalize(self.first(x.flatten(1))).relu())


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.GroupNorm(4, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image):
        return self.head(self.conv(image).flatten(1))


class PatchTransformer(nn.Module):
    """A vision transformer as in timm: patches by a convolution, fused query, key and value."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 32, 8, 8)
        self.pos_embed = nn.Parameter(torch.randn(1, 16, 32) * 0.02)
        self.norm, self.qkv, self.proj, self.head = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        samples, patches, width = x.shape
        query, key, value = self.qkv(self.norm(x)).reshape(samples, patches, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(samples, patches, width)
        return self.head((x + self.proj(mixed)).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(24, 32, batch_first=True), nn.Linear(32, 32)

    def forward(self, features):
        states, _ = self.rnn(features)
        return self.head(states[:, -1])


class Language(nn.Module):
    """A language model with its own loss and its own checkpoint calls."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(2)
        )
        self.out = nn.Linear(32, 64)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None):
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = hidden + (checkpoint(block, hidden, use_reentrant=False) if self.training else block(hidden))
        logits = self.out(hidden)
        if labels is None:
            return logits
        return {"loss": functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten()), "logits": logits}


class Experts(nn.Module):
    """Experts in a list, of which each token takes the best."""

    def __init__(self):
        super().__init__()
        self.norm, self.router = nn.LayerNorm(32), nn.Linear(32, 3)
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, hidden):
        weights = self.router(self.norm(hidden)).softmax(-1)
        return sum(weights[..., index, None] * expert(hidden) for index, expert in enumerate(self.experts))


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.passage = nn.Linear(48, 32), nn.Linear(48, 32)

    def forward(self, query, passage):
        return self.query(query) @ self.passage(passage).transpose(-1, -2)


class Denoising(nn.Module):
    """A signal and a time step, as in diffusion policies."""

    def __init__(self):
        super().__init__()
        self.conv, self.time, self.out = nn.Conv1d(4, 32, 3, padding=1), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, sample, scale=None):
        hidden = self.conv(sample).transpose(1, 2)
        hidden = hidden if scale is None else hidden * scale
        return self.out(functional.silu(self.time(hidden))).transpose(1, 2)


class Pooled(nn.Module):
    """A sentence encoder: a dictionary of features in, a dictionary with the embedding out."""

    def __init__(self):
        super().__init__()
        self.auto_model = transformers.BertModel(small_bert())
        self.dense = nn.Linear(32, 16)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = self.auto_model(**features).last_hidden_state
        mask = features["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return {"sentence_embedding": self.dense((hidden * mask).sum(1) / mask.sum(1))}


class ValueHead(nn.Module):
    """A language model with a value for each token."""

    def __init__(self):
        super().__init__()
        self.pretrained_model = small_llama()
        self.v_head = nn.Linear(32, 1)

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        out = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **kwargs)
        return out.logits, out.loss, self.v_head(out.hidden_states[-1]).squeeze(-1)


class FrozenBackbone(nn.Module):
    """A head on a backbone that runs under ``no_grad``."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = small_llama().model, nn.Linear(32, 3)

    def forward(self, input_ids):
        with torch.no_grad():
            hidden = self.backbone(input_ids).last_hidden_state
        return self.head(hidden[:, -1])


def small_bert():
    return transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )


def small_llama():
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))


KINDS = (
    MLP,
    Flattening,
    Convolutional,
    PatchTransformer,
    Recurrent,
    Language,
    Experts,
    TwoTowers,
    Denoising,
    Pooled,
    ValueHead,
)
