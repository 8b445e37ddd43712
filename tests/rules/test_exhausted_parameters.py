"""KB656: optimizers that get an iterator which has been read before."""

from __future__ import annotations

import pytest
import torch
from script_cases import ADAPTED, LOADED, PREPARED, findings

FILTERED = "trainable = filter(lambda p: p.requires_grad, model.parameters())\n"
OPTIMIZED = "optimizer = torch.optim.AdamW(trainable, lr=1e-4)\n"


def said(body):
    return [(severity, line) for severity, line, _ in findings("KB656", LOADED + PREPARED + ADAPTED + body)]


@pytest.mark.parametrize(
    "body",
    [
        FILTERED + "print(sum(p.numel() for p in trainable))\n",
        FILTERED + "count = len(list(trainable))\n",
        "trainable = (p for p in model.parameters() if p.requires_grad)\nprint(sum(p.numel() for p in trainable))\n",
        "trainable = model.parameters()\nfor p in trainable:\n    count += p.numel()\n",
        "def size(parameters):\n    return sum(p.numel() for p in parameters)\n" + FILTERED + "print(size(trainable))\n",
        FILTERED + "other = torch.optim.SGD(trainable, lr=1e-2)\n",
    ],
)
def test_an_iterator_that_has_been_read(body):
    assert said(body + OPTIMIZED) == [("error", OPTIMIZED.strip())]


@pytest.mark.parametrize(
    "body",
    [
        FILTERED,
        FILTERED.replace("filter(", "list(filter(").replace("())", "()))") + "print(sum(p.numel() for p in trainable))\n",
        "trainable = [p for p in model.parameters() if p.requires_grad]\nprint(sum(p.numel() for p in trainable))\n",
        "print(sum(p.numel() for p in model.parameters()))\ntrainable = model.parameters()\n",
        FILTERED + "print(sum(p.numel() for p in trainable))\n" + FILTERED,
    ],
)
def test_look_alikes(body):
    assert said(body + OPTIMIZED) == []


def test_torch_refuses_it():
    trainable = filter(lambda p: p.requires_grad, torch.nn.Linear(2, 2).parameters())
    sum(p.numel() for p in trainable)

    with pytest.raises(ValueError, match="optimizer got an empty parameter list"):
        torch.optim.AdamW(trainable)
