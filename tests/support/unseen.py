"""Modules of no library whose signature does not tell their batch. Each has a user's batch, which kbitlint does not see."""

from __future__ import annotations

from typing import NamedTuple

import torch
import transformers
from plain import small_llama
from torch import Tensor, nn
from torch.nn import functional


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.bfloat16)


class Keywords(nn.Module):
    """Two streams of different widths, read out of ``**kwargs``."""

    def __init__(self):
        super().__init__()
        self.see, self.hear, self.norm, self.out = nn.Linear(48, 32), nn.Linear(24, 32), nn.LayerNorm(32), nn.Linear(32, 4)

    def forward(self, **kwargs):
        return self.out(self.norm(self.see(kwargs["video"]).mean(1) + self.hear(kwargs["audio"]).mean(1)))

    def example(self):
        return {"video": numbers(2, 5, 48), "audio": numbers(2, 7, 24)}


class Transitions(NamedTuple):
    states: Tensor
    actions: Tensor
    rewards: Tensor


class Record(nn.Module):
    """A whole batch as an object, of which it reads attributes: numbers, indices and targets."""

    def __init__(self):
        super().__init__()
        self.state, self.action, self.norm, self.out = (
            nn.Linear(24, 32),
            nn.Embedding(6, 32),
            nn.LayerNorm(32),
            nn.Linear(32, 6),
        )

    def forward(self, batch):
        hidden = self.norm(self.state(batch.states) + self.action(batch.actions))
        return functional.smooth_l1_loss(self.out(hidden).float().max(-1).values, batch.rewards.float())

    def example(self):
        return {"batch": Transitions(numbers(2, 5, 24), torch.randint(0, 6, (2, 5)), torch.rand(2, 5))}


class Mapping(nn.Module):
    """A whole batch as a dictionary without an annotation, with targets under a name that says nothing."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.norm, self.out = nn.Embedding(64, 32), nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 4)

    def forward(self, batch):
        hidden = self.norm(self.mix(self.embed(batch["tokens"]))).mean(1)
        return functional.cross_entropy(self.out(hidden).float(), batch["y"])

    def example(self):
        return {"batch": {"tokens": torch.randint(0, 64, (2, 6)), "y": torch.tensor([1, 2])}}


class Graph(nn.Module):
    """Nodes, and the edges along which they send messages."""

    def __init__(self):
        super().__init__()
        self.enter, self.send, self.norm, self.out = nn.Linear(24, 32), nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 3)

    def forward(self, x, edge_index):
        hidden = self.enter(x)
        source, target = edge_index
        sent = self.send(torch.cat([hidden[source], hidden[target]], -1)).relu()
        return self.out(self.norm(hidden + torch.zeros_like(hidden).index_add_(0, target, sent)).mean(0))

    def example(self):
        return {"x": numbers(6, 24), "edge_index": torch.randint(0, 6, (2, 10))}


class Announced(nn.Module):
    """A language model whose text must hold one token of an image for each of its features."""

    IMAGE = 63

    def __init__(self):
        super().__init__()
        self.tower, self.project = nn.Conv2d(3, 16, 16, 16), nn.Linear(16, 32)
        self.pretrained_model = small_llama()

    def forward(self, input_ids, pixel_values=None, labels=None):
        embeds = self.pretrained_model.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            features = self.project(self.tower(pixel_values).flatten(2).transpose(1, 2))
            places = input_ids == self.IMAGE
            if places.sum() != features[..., 0].numel():
                raise ValueError(f"{places.sum()} image tokens, but {features[..., 0].numel()} features")
            embeds = embeds.masked_scatter(places.unsqueeze(-1), features.to(embeds.dtype))
        return self.pretrained_model(inputs_embeds=embeds, labels=labels, use_cache=False)

    def example(self):
        tokens = torch.cat([torch.full((2, 4), self.IMAGE), torch.randint(5, 60, (2, 6))], dim=1)
        return {"input_ids": tokens, "pixel_values": numbers(2, 3, 32, 32), "labels": tokens}


class FirstInFloat32(nn.Module):
    """Its first parameter is a router in float32, and its layers take bfloat16."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.out = nn.Linear(48, 32), nn.LayerNorm(32), nn.Linear(32, 8)
        self.routes = nn.Parameter(torch.randn(4, 32))

    def to(self, *args, **kwargs):
        super().to(*args, **kwargs)
        self.routes.data = self.routes.data.float()
        return self

    def forward(self, x):
        hidden = self.norm(self.first(x)).to(x.dtype)
        weights = functional.linear(hidden.float(), self.routes).softmax(-1)
        return self.out(hidden) * weights.to(x.dtype).sum(-1, keepdim=True)

    def example(self):
        return {"x": numbers(2, 5, 48)}


class FusedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain):
        if x.dtype != gain.dtype:
            raise RuntimeError(f"fused_norm: the input is {x.dtype}, the gain is {gain.dtype}")
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(x.dtype)
        ctx.save_for_backward(x, gain, scale)
        return x * scale * gain

    @staticmethod
    def backward(ctx, gradient):
        x, gain, scale = ctx.saved_tensors
        return gradient * scale * gain, (gradient * x * scale).flatten(0, -2).sum(0)


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(32))

    def forward(self, x):
        return FusedNorm.apply(x, self.gain)


class OwnKernel(nn.Module):
    """A norm with a kernel of its own, which says itself that its dtypes do not fit."""

    def __init__(self):
        super().__init__()
        self.first, self.fused_norm, self.last = nn.Linear(48, 32), Gain(), nn.Linear(32, 8)

    def forward(self, x):
        return self.last(self.fused_norm(self.first(x)))

    def example(self):
        return {"x": numbers(2, 6, 48)}


class PassedTwice(nn.Module):
    """A wrapper that takes any keyword, and passes one of them itself."""

    def __init__(self):
        super().__init__()
        self.policy, self.value = small_llama(), nn.Linear(32, 1)

    def forward(self, **kwargs):
        out = self.policy(**kwargs, use_cache=False, output_hidden_states=True)
        return self.value(out.hidden_states[-1])

    def example(self):
        return {"input_ids": torch.randint(5, 60, (2, 9))}


class Declaring(transformers.PreTrainedModel):
    """Remote code that inherits the promise of checkpointing, and calls none."""

    config_class = transformers.LlamaConfig
    supports_gradient_checkpointing = _supports_sdpa = True

    def __init__(self, config=None):
        super().__init__(config or small_llama().config)
        self.embed, self.block = nn.Embedding(64, 32), nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32))
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, labels=None):
        logits = functional.linear(self.block(self.embed(input_ids)), self.embed.weight)
        loss = None if labels is None else functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return transformers.modeling_outputs.CausalLMOutput(loss=loss, logits=logits)

    def example(self):
        tokens = torch.randint(5, 60, (2, 9))
        return {"input_ids": tokens, "labels": tokens}


class AdaptersByHand(nn.Module):
    """Low-rank factors beside packed layers, under names of no library."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 48))
        self.down = nn.ParameterDict({"0": torch.randn(4, 48) * 0.02, "2": torch.randn(4, 64) * 0.02})
        self.up = nn.ParameterDict({"0": torch.zeros(64, 4), "2": torch.zeros(48, 4)})

    def forward(self, x):
        for name, layer in self.body.named_children():
            added = functional.linear(x @ self.down[name].T, self.up[name]) if name in self.down else 0
            x = layer(x) + added
        return x


KINDS = (Keywords, Record, Mapping, Graph, Announced, FirstInFloat32, OwnKernel, PassedTwice, Declaring)
