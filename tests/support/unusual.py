"""Modules of no library whose batches, buffers or operators are unusual. Linear layers in them are quantized."""

from __future__ import annotations

import torch
from plain import small_llama
from torch import nn
from torch.nn import functional


class Tower(nn.Module):
    """A frozen tower under ``no_grad``, a projector, and a language model. Its forward needs more than the language model's."""

    def __init__(self):
        super().__init__()
        self.tower, self.project = nn.Conv2d(3, 16, 8, 8), nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 32))
        self.pretrained_model = small_llama()

    def forward(self, pixel_values, input_ids, labels=None):
        with torch.no_grad():
            features = self.tower(pixel_values).flatten(2).transpose(1, 2)
        words = self.pretrained_model.get_input_embeddings()(input_ids)
        embeds = torch.cat([self.project(features), words], dim=1)
        logits = self.pretrained_model(inputs_embeds=embeds, use_cache=False).logits[:, -input_ids.shape[1] :]
        return logits if labels is None else functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


class Dictionary(nn.Module):
    """A whole batch as its only argument, of which it reads a key that no text has by itself."""

    def __init__(self):
        super().__init__()
        self.pretrained_model, self.head = small_llama(), nn.Linear(32, 64)

    def forward(self, batch: dict):
        hidden = self.pretrained_model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return {"loss": functional.cross_entropy(self.head(hidden).flatten(0, 1).float(), batch["labels"].flatten())}


class Copied(nn.Module):
    """It copies a dictionary before it reads it, and passes another one on by its entries. Its argument is a ``state``."""

    def __init__(self):
        super().__init__()
        self.words, self.body, self.lm_head = nn.Embedding(40, 48), nn.Linear(48, 48), nn.Linear(48, 40)

    def forward(self, state):
        state = dict(state)
        state["hidden"] = self.body(self.words(state["seen"]))
        return self.scored(state["hidden"], **state["told"])

    def scored(self, hidden, target, *, weight):
        losses = nn.functional.cross_entropy(self.lm_head(hidden).float().flatten(0, 1), target.flatten(), reduction="none")
        return (losses * weight.float().flatten()).mean()


class PackedSequences(nn.Module):
    """Sequences without their padding, as recurrent networks take them."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(64, 24), nn.LSTM(24, 32, batch_first=True), nn.Linear(32, 3)

    def forward(self, input_ids):
        lengths = (input_ids != 0).sum(1).cpu().clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(input_ids), lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(states.mean(1))


class FixedSize(nn.Module):
    """Images of one size, under a name that says nothing."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 5)

    def forward(self, x):
        if x.shape[-1] != 56:
            raise ValueError(f"Input height ({x.shape[-1]}) doesn't match model (56).")
        return self.head(self.patches(x).flatten(2).mean(-1))


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient * (ctx.saved_tensors[0].abs() < 100)


class OwnOperators(nn.Module):
    """A function with a backward of its own, and buffers in dtypes that no weight has."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(48, 48), nn.Linear(48, 8)
        self.register_buffer("mask", torch.ones(48, dtype=torch.bool))
        self.register_buffer("scale", torch.ones(48, dtype=torch.int8))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        self.steps += 1
        return self.last(Reversal.apply(self.first(x) * self.scale).masked_fill(~self.mask, 0))


class Dispatch(nn.Module):
    """Experts that each get their own tokens, by index."""

    def __init__(self):
        super().__init__()
        self.router, self.out = nn.Linear(32, 3), nn.Linear(32, 8)
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, hidden):
        tokens = hidden.reshape(-1, 32)
        weights, chosen = self.router(tokens).softmax(-1).topk(2)
        made = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == index)
            made.index_add_(0, rows, expert(tokens[rows]) * weights[rows, places, None])
        return self.out(made)


class Momentum(nn.Module):
    """A queue that the forward writes, and a scale that is trained."""

    def __init__(self):
        super().__init__()
        self.query, self.scale = nn.Linear(48, 16), nn.Parameter(torch.tensor(2.6))
        self.register_buffer("queue", torch.randn(16, 32))
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))

    def forward(self, x):
        query = functional.normalize(self.query(x).mean(1), dim=1)
        scores = self.scale.exp() * query @ self.queue.clone().to(query.dtype)
        with torch.no_grad():
            start = int(self.place)
            self.queue[:, start : start + len(query)] = query.t().to(self.queue.dtype)
            self.place[0] = (start + len(query)) % 32
        return functional.cross_entropy(scores.float(), torch.zeros(len(query), dtype=torch.long))


KINDS = (Tower, Dictionary, Copied, PackedSequences, FixedSize, OwnOperators, Dispatch, Momentum)
