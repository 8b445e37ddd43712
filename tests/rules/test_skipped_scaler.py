from __future__ import annotations

import pytest
import torch
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB660"
MADE = LOADED + PREPARED + ADAPTED + "from accelerate import Accelerator\nacc = Accelerator(mixed_precision='fp16')\n"
LOOP = """\
model, opt = acc.prepare(model, opt)
for batch in loader:
    loss = model(**batch).loss
    {}
    opt.step()
    opt.zero_grad()
"""


def test_a_loss_that_is_not_scaled():
    message = "the loss goes backward past acc, whose scaler steps the optimizer: the first step raises"
    assert findings(CODE, MADE + LOOP.format("loss.backward()")) == [("error", "loss.backward()", message)]


@pytest.mark.parametrize(
    "text",
    [
        MADE + LOOP.format("acc.backward(loss)"),
        MADE.replace("fp16", "bf16") + LOOP.format("loss.backward()"),
        MADE + LOOP.format("loss.backward()").replace("acc.prepare(model, opt)", "model, opt"),
    ],
)
def test_look_alikes(text):
    assert findings(CODE, text) == []


def test_a_real_scaler_raises():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")
    weight.sum().backward()

    with pytest.raises(AssertionError, match="did not use"):
        scaler.step(optimizer)
