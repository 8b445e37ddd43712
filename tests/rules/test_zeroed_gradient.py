"""Rule KB315: zeroed-gradient."""

from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, UniLoraConfig, VeraConfig, get_peft_model
from torch import nn

import kbitlint

CODE = "KB315"


def told(model):
    return [(v.at.path, v.severity.value, v.evidence["parameters"]) for v in kbitlint.check(model, select=CODE).violations]


def unmoved(model):
    """The trainable parameters that some real steps of SGD do not change by a bit."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.SGD(trained.values(), lr=1.0)
    for seed in range(3):
        assert tiny.step(model, seed=seed).error is None
        optimizer.step()
    return [name for name, parameter in trained.items() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_scales_that_a_cast_to_the_dtype_of_bytes_rounds_to_zero_are_an_error(kind):
    """PEFT keeps the scales of UniLoRA, which are below 1, in the dtype of the layer's weight."""
    config = UniLoraConfig(target_modules=["q_proj", "v_proj"], r=4)
    model = get_peft_model(tiny.load(kind=kind), config)

    ((path, severity, parameters),) = told(model)
    assert (".unilora_scales_" in path, severity, parameters) == (True, "error", 1)
    assert len(unmoved(model)) == 1

    plain = get_peft_model(tiny.load(kind="none"), config)
    assert (told(plain), unmoved(plain)) == ([], [])


class Gated(nn.Module):
    """A layer behind a gate, as cross-attention has it. ``before`` gets the gate in each step."""

    def __init__(self, layer, gate, before=None):
        super().__init__()
        self.layer, self.before = layer, before
        if isinstance(gate, nn.Parameter):
            self.gate = gate
        else:
            self.register_buffer("gate", gate)

    def forward(self, hidden, *args, **kwargs):
        if self.before is not None:
            self.before(self.gate)
        return self.gate.tanh() * self.layer(hidden, *args, **kwargs)


def gated(gate, before=None):
    model = tiny.load()
    model.model.layers[1].mlp = Gated(model.model.layers[1].mlp, gate, before)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["down_proj"]))


def test_a_frozen_gate_of_zeros_keeps_what_lies_behind_it_as_it_is():
    model = gated(nn.Parameter(torch.zeros(1, dtype=torch.bfloat16)))

    assert told(model) == [("model.layers.1.mlp.gate", "warning", 2)]
    assert [name.split(".lora")[0].rpartition("layers.")[2] for name in unmoved(model)] == ["1.mlp.layer.down_proj"] * 2


@pytest.mark.parametrize("state", ["opened", "trained", "written in each step"])
def test_a_gate_that_is_open_or_opens_is_no_fault(state):
    gate = torch.zeros(1, dtype=torch.bfloat16)
    if state == "written in each step":
        model = gated(gate, lambda own: own.add_(0.5))
    else:
        model = gated(nn.Parameter(gate + (state == "opened")))
        model.get_submodule("base_model.model.model.layers.1.mlp").gate.requires_grad_(state == "trained")

    assert told(model) == []
    assert unmoved(model) == []


def test_factors_of_zeros_are_the_normal_start_and_two_of_them_another_rule():
    assert told(get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"]))) == []
    assert told(get_peft_model(tiny.load(), VeraConfig(r=4, target_modules=["o_proj"]))) == []
    dead = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in dead.named_parameters():
        if "lora_" in name:
            parameter.data.zero_()

    assert told(dead) == []


def test_a_frozen_factor_of_zeros_is_told_with_what_it_stops():
    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.requires_grad_(requires_grad=False)

    assert {(severity, parameters) for _, severity, parameters in told(model)} == {("error", 1)}
    assert len(told(model)) == len(unmoved(model)) == 2
