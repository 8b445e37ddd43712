"""Modules whose inputs no documentation describes: their code alone tells the form. Each has a user's batch."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from unseen import numbers


def tokens(below, *shape):
    return torch.randint(0, below, shape)


class Several(nn.Module):
    """Inputs behind a star, one for each branch."""

    def __init__(self):
        super().__init__()
        self.branches, self.out = nn.ModuleList([nn.Linear(size, 16) for size in (8, 12, 5)]), nn.Linear(48, 3)

    def forward(self, *inputs):
        return self.out(torch.cat([branch(one) for branch, one in zip(self.branches, inputs, strict=True)], -1))

    def example(self):
        return (numbers(2, 8), numbers(2, 12), numbers(2, 5))


class TupleBatch(nn.Module):
    """A batch that the forward unpacks: ids, their mask and the targets."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(50, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, batch):
        ids, mask, targets = batch
        hidden = self.layer(self.embed(ids)) * mask.unsqueeze(-1)
        return functional.cross_entropy(self.head(hidden.sum(1) / mask.sum(1, keepdim=True)).float(), targets)

    def example(self):
        return ((tokens(50, 2, 8), torch.ones(2, 8, dtype=torch.bfloat16), tokens(4, 2)),)


class Nested(nn.Module):
    """A dictionary of dictionaries, as collators of several modalities make it. The loss is one of its results."""

    def __init__(self):
        super().__init__()
        self.see, self.read, self.join = nn.Linear(20, 32), nn.Embedding(40, 32), nn.Linear(64, 2)

    def forward(self, batch):
        seen, read = self.see(batch["inputs"]["image"]).mean(1), self.read(batch["inputs"]["text"]["ids"]).mean(1)
        scores = self.join(torch.cat([seen, read], -1))
        return {"loss": functional.cross_entropy(scores.float(), batch["target"]), "scores": scores}

    def example(self):
        inputs = {"image": numbers(2, 6, 20), "text": {"ids": tokens(40, 2, 7)}}
        return ({"inputs": inputs, "target": tokens(2, 2)},)


class ImagesOfAnySize(nn.Module):
    """A list of images, each of its own size."""

    def __init__(self):
        super().__init__()
        self.patch, self.layer, self.head = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 32), nn.Linear(32, 6)

    def forward(self, images: list):
        rows = [self.layer(self.patch(image[None]).flatten(2).transpose(1, 2)).mean(1) for image in images]
        return self.head(torch.cat(rows))

    def example(self):
        return ([numbers(3, 16, 8), numbers(3, 8, 12)],)


class Graphs:
    """Nodes and edges of several graphs, as PyTorch Geometric holds them."""

    def __init__(self, **parts):
        self.__dict__.update(parts)


class MessagePassing(nn.Module):
    """A graph network: nodes have no dimension of samples, and edges index them."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(10, 32), nn.Linear(32, 32), nn.Linear(32, 1)

    def forward(self, data):
        nodes, edges, graph = data.x, data.edge_index, data.batch
        start, end = edges
        hidden = self.embed(nodes)
        hidden = self.layer(hidden + torch.zeros_like(hidden).index_add_(0, end, hidden[start]))
        pooled = torch.zeros(int(graph.max()) + 1, hidden.size(1), dtype=hidden.dtype).index_add_(0, graph, hidden)
        return self.head(pooled).view(-1)

    def example(self):
        return (Graphs(x=tokens(10, 12), edge_index=tokens(12, 2, 30), batch=torch.arange(12) // 6),)


class PackedSamples(nn.Module):
    """Sequences one behind the other, with their ends beside them."""

    def __init__(self):
        super().__init__()
        self.embed, self.attend, self.out = nn.Embedding(100, 32), nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, ids, cu_seqlens, max_seqlen):  # noqa: ARG002  # as flash attention's callers have it
        query, key, value = self.attend(self.embed(ids)).chunk(3, -1)
        ends = [int(cu_seqlens[at]) for at in range(len(cu_seqlens))]
        pieces = [slice(start, end) for start, end in itertools.pairwise(ends)]
        each = [functional.scaled_dot_product_attention(query[None, s], key[None, s], value[None, s])[0] for s in pieces]
        return self.out(torch.cat(each))

    def example(self):
        return (tokens(100, 20), torch.tensor([0, 8, 20], dtype=torch.int32), 12)


class Diffusion(nn.Module):
    """A denoiser of images that are noised to a time, under a class."""

    def __init__(self):
        super().__init__()
        self.patch, self.time, self.kind = nn.Conv2d(4, 32, 2, 2), nn.Linear(32, 32), nn.Embedding(11, 32)
        self.shift, self.out = nn.Linear(32, 64), nn.Linear(32, 16)

    def forward(self, x, t, y=None):
        hidden = self.patch(x).flatten(2).transpose(1, 2)
        rates = torch.exp(-math.log(10000) * torch.arange(16) / 16)
        angles = t[:, None].float() * rates[None]
        condition = self.time(torch.cat([angles.cos(), angles.sin()], -1).to(x.dtype)) + self.kind(y)
        shift, scale = self.shift(condition).chunk(2, 1)
        return self.out(hidden * (1 + scale[:, None]) + shift[:, None])

    def example(self):
        return (numbers(2, 4, 8, 8), tokens(1000, 2), tokens(10, 2))


@dataclass
class Pairs:
    source: Tensor
    lengths: Tensor
    target: Tensor
    count: int


class Translation(nn.Module):
    """A batch as a dataclass, with lengths in place of a mask and a number of Python's."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(33, 32), nn.Linear(32, 32), nn.Linear(32, 33)

    def forward(self, batch: Pairs):
        mask = torch.arange(batch.source.size(1))[None] < batch.lengths[:, None]
        scores = self.head(self.layer(self.embed(batch.source) * mask.unsqueeze(-1))).float()
        return functional.cross_entropy(scores.transpose(1, 2), batch.target, reduction="sum") / batch.count

    def example(self):
        return (Pairs(tokens(33, 2, 6), torch.tensor([6, 4]), tokens(33, 2, 6), 12),)


class Decisions(nn.Module):
    """Several series of different widths whose sizes are read before a layer takes them."""

    def __init__(self):
        super().__init__()
        self.state, self.action, self.gain, self.time = (
            nn.Linear(17, 32),
            nn.Linear(6, 32),
            nn.Linear(1, 32),
            nn.Embedding(99, 32),
        )
        self.head = nn.Linear(32, 6)

    def forward(self, states, actions, returns, timesteps):
        batch, steps = states.shape[0], states.shape[1]
        time = self.time(timesteps)
        rows = torch.stack((self.gain(returns) + time, self.state(states) + time, self.action(actions) + time), 2)
        return self.head(rows.reshape(batch, 3 * steps, 32).reshape(batch, steps, 3, 32)[:, :, 1])

    def example(self):
        return (numbers(2, 4, 17), numbers(2, 4, 6), numbers(2, 4, 1), tokens(99, 2, 4))


class Spectrum(nn.Module):
    """A sound that is transformed, masked and transformed back."""

    def __init__(self):
        super().__init__()
        self.enter, self.mask = nn.Linear(65, 32), nn.Linear(32, 65)

    def forward(self, wave):
        window = torch.hann_window(128)
        spectrum = torch.stft(wave.float(), 128, 64, window=window, return_complex=True)
        mask = self.mask(self.enter(spectrum.abs().transpose(1, 2).to(torch.bfloat16))).float().sigmoid()
        return torch.istft(spectrum * mask.transpose(1, 2), 128, 64, window=window)

    def example(self):
        return (numbers(2, 1024),)


class ActorAndCritic(nn.Module):
    """Two results, of which the user's own loop makes one loss."""

    def __init__(self):
        super().__init__()
        self.body, self.actor, self.critic = nn.Linear(11, 32), nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, observation, action):
        hidden = torch.tanh(self.body(observation))
        return torch.distributions.Categorical(logits=self.actor(hidden).float()).log_prob(action), self.critic(hidden)

    def example(self):
        return (numbers(5, 11), tokens(3, 5))


KINDS = [
    *(Several, TupleBatch, Nested, ImagesOfAnySize, MessagePassing, PackedSamples, Diffusion, Translation, Decisions),
    *(Spectrum, ActorAndCritic),
]


class OwnStep(nn.Module):
    """A module in Lightning's form: its forward is for inference, and its own step computes the loss."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(16, 64)

    def forward(self, image):
        return self.encoder(image)

    def training_step(self, batch, batch_idx):  # noqa: ARG002  # Lightning's protocol
        image, _ = batch
        image = image.view(image.size(0), -1)
        return functional.mse_loss(self.decoder(self.encoder(image)).float(), image.float())
