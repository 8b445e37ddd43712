"""Rule KB320: unregistered-parameter."""

from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import kbitlint

CODE = "KB320"


class Beside(nn.Module):
    """A packed layer with something of its own beside it."""

    def __init__(self, layer, kind):
        super().__init__()
        self.layer = layer
        factors = [nn.Linear(64, 4, bias=False).bfloat16(), nn.Linear(4, 64, bias=False).bfloat16()]
        if kind == "list":
            self.factors = factors
        elif kind == "dictionary":
            self.factors = {0: factors[0], 1: factors[1]}
        elif kind == "module list":
            self.factors = nn.ModuleList(factors)
        elif kind == "teacher":
            self.factors, self.teacher = nn.ModuleList(factors), [nn.Linear(64, 64).bfloat16()]
        else:
            self.prompt = torch.randn(64, dtype=torch.bfloat16, requires_grad=True)
        self.kind = kind

    def forward(self, hidden):
        if self.kind == "tensor":
            return self.layer(hidden + self.prompt)
        if self.kind == "teacher":
            with torch.no_grad():
                self.teacher[0](hidden)
        return self.layer(hidden) + self.factors[1](self.factors[0](hidden))


def beside(kind, *, lora=False):
    model = tiny.load().requires_grad_(requires_grad=False)
    attention = model.model.layers[0].self_attn
    attention.q_proj = Beside(attention.q_proj, kind)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["v_proj"], init_lora_weights=False)) if lora else model


def told(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


PLACE = "model.layers.0.self_attn.q_proj"
STRAY = {
    "list": [f"{PLACE}.factors[0].weight", f"{PLACE}.factors[1].weight"],
    "dictionary": [f"{PLACE}.factors[0].weight", f"{PLACE}.factors[1].weight"],
    "tensor": [f"{PLACE}.prompt"],
}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", STRAY)
def test_what_no_module_registers_gets_a_gradient_and_no_step(kind, lora):
    model = beside(kind, lora=lora)
    assert told(model) == [(path, "warning" if lora else "error") for path in STRAY[kind]]
    own = model.get_submodule(f"base_model.model.{PLACE}" if lora else PLACE)
    strays = [own.prompt] if kind == "tensor" else [own.factors[index].weight for index in (0, 1)]
    assert not {id(one) for one in strays} & {id(one) for one in model.parameters()}
    tiny.step(model)
    assert all(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in strays)
    assert not [key for key in model.state_dict() if "factors" in key or "prompt" in key]


@pytest.mark.parametrize("kind", ["module list", "teacher"])
def test_registered_factors_and_a_teacher_kept_out_under_no_grad_are_no_fault(kind):
    model = beside(kind)
    assert told(model) == []
    assert tiny.step(model).arrived == (f"{PLACE}.factors.0.weight", f"{PLACE}.factors.1.weight")
