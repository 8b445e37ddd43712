from __future__ import annotations

import pytest
import torch
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, findings

CODE = "KB576"
MADE = LOADED + PREPARED + ADAPTED


def test_a_loop_that_clears_no_gradients():
    message = "optimizer.step takes steps, and nothing clears the gradients: each step sees the sum of all batches"
    assert findings(CODE, MADE + LOOP) == [("error", "optimizer.step()", message)]


@pytest.mark.parametrize(
    "text",
    [
        MADE + LOOP + "    optimizer.zero_grad()\n",
        MADE + LOOP + "    model.zero_grad(set_to_none=True)\n",
        MADE + LOOP + "    for p in model.parameters():\n        p.grad = None\n",
        MADE + "engine = deepspeed.initialize(model=model)\n" + LOOP,
        MADE + LOOP.replace("in loader", "in []"),
    ],
)
def test_look_alikes(text):
    assert findings(CODE, text) == []


def test_real_gradients_grow_without_it():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    seen = []
    for _ in range(3):
        (weight * 2).sum().backward()
        optimizer.step()
        seen.append(weight.grad.item())

    assert seen == [2, 4, 6]
