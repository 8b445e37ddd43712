from __future__ import annotations

import copy

import pytest
import torch
from diffusion import quantized
from peft import LoraConfig, get_peft_model
from torch import nn

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB309"


class Listed(nn.Module):
    """Its layers are registered, and its forward calls them from a list."""

    def __init__(self, *, calls=True):
        super().__init__()
        self.first, self.layers = nn.Linear(48, 48), [nn.Linear(48, 32), nn.ReLU()]
        self.calls = calls
        for index, layer in enumerate(self.layers):
            self.add_module(str(index), layer)

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers if self.calls else (self._modules["0"], self._modules["1"]):
            x = layer(x)
        return x


def model(*, calls=True, meta=False):
    made = quantized(Listed(calls=calls).to(torch.bfloat16)).requires_grad_(requires_grad=False)
    if meta:  # as from_pretrained leaves it
        made.layers[0] = copy.deepcopy(made.layers[0]).to("meta")
    return get_peft_model(made, LoraConfig(r=4, target_modules=["first"]))


def step(made):
    try:
        made.train()(torch.randn(2, 48, dtype=torch.bfloat16)).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        return type(error).__name__
    return None


@pytest.mark.parametrize(("meta", "severity"), [(True, "error"), (False, "warning")])
def test_a_layer_from_before_quantization_is_called(meta, severity):
    made = model(meta=meta)

    report = kbitlint.check(made, select=CODE, context=TrainingContext(autocast_dtype="float32"))

    ending = ", and which has no weights" if meta else ""
    message = f"its forward calls layers[0], which quantization replaced by '0'{ending}"
    assert [(v.severity.value, v.at.path, v.message) for v in report.violations] == [(severity, "", message)]
    assert (report.crashes, step(made) is not None) == ((), meta)


@pytest.mark.parametrize("meta", [True, False])
def test_a_list_that_is_not_called_is_none_of_its_business(meta):
    made = model(calls=False, meta=meta)

    report = kbitlint.check(made, select=CODE, context=TrainingContext(autocast_dtype="float32"))

    assert (report.violations, report.crashes, step(made)) == ((), (), None)
