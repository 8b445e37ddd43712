"""Rule KB321: written-base-buffer."""

from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

import kbitlint

CODE = "KB321"
NORM = "model.layers.0.mlp.statistics"


class Normalized(nn.Module):
    """A layer with batch norm behind it, as the convolution modules of speech encoders have it."""

    def __init__(self, layer, **arguments):
        super().__init__()
        self.layer, self.statistics = layer, nn.BatchNorm1d(64, **arguments).bfloat16()

    def forward(self, hidden):
        return self.statistics(self.layer(hidden).transpose(1, 2)).transpose(1, 2)


def base(**arguments):
    model = tiny.load().requires_grad_(requires_grad=False)
    model.model.layers[0].mlp = Normalized(model.model.layers[0].mlp, **arguments).requires_grad_(requires_grad=False)
    return model


def adapted(model, **config):
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **config))


def told(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def drift(model, folder, **arguments):
    """Train some steps, save the adapter, load it on a fresh base, and return the largest difference of the logits."""
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
    for seed in range(3):
        assert tiny.step(model, seed=seed).error is None
        optimizer.step()
    model.save_pretrained(folder)
    loaded = PeftModel.from_pretrained(base(**arguments), folder)
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        first, second = (one.eval()(input_ids=ids).logits.float() for one in (model, loaded))
    return float((first - second).abs().max())


def test_running_statistics_follow_the_data_and_are_not_saved(tmp_path):
    model = adapted(base(momentum=0.9))
    assert told(model) == [(f"{NORM}.running_mean", "warning")]
    assert drift(model, tmp_path, momentum=0.9) > 0.05


@pytest.mark.parametrize(
    ("arguments", "config"),
    [({"momentum": 0.0}, {}), ({"track_running_stats": False}, {}), ({}, {"modules_to_save": ["statistics"]})],
)
def test_statistics_that_stay_or_are_saved_are_no_fault(arguments, config, tmp_path):
    model = adapted(base(**arguments), **config)
    assert told(model) == []
    assert drift(model, tmp_path, **arguments) < 0.02


def test_a_model_without_adapters_saves_its_buffers_itself():
    assert told(base()) == []


class Counted(nn.Module):
    """A layer that counts its calls, and one that also keeps a mean."""

    def __init__(self, layer, dtype):
        super().__init__()
        self.layer = layer
        self.register_buffer("seen", torch.zeros((), dtype=dtype))

    def forward(self, hidden):
        self.seen += 1
        return self.layer(hidden) * (1 + self.seen / 100) if self.seen.is_floating_point() else self.layer(hidden)


@pytest.mark.parametrize("dtype", [torch.long, torch.float32])
def test_a_counter_is_no_fault_and_a_number_that_scales_the_output_is_one(dtype):
    model = tiny.load().requires_grad_(requires_grad=False)
    model.model.layers[0].mlp = Counted(model.model.layers[0].mlp, dtype)
    model = adapted(model)
    assert told(model) == ([] if dtype is torch.long else [("model.layers.0.mlp.seen", "warning")])
    assert tiny.step(model).error is None
    assert model.get_submodule("base_model.model.model.layers.0.mlp").seen.item() == 1
