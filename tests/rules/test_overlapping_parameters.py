"""Rule KB331: overlapping-parameters."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

import kbitlint

CODE = "KB331"
FIRST, SECOND = (f"model.layers.{layer}.self_attn.q_proj.lora_A.default.weight" for layer in (0, 1))


def model_and_factors():
    model = tiny.with_lora(tiny.prepared(), target_modules=["q_proj"], init_lora_weights=False)
    return model, [layer.self_attn.q_proj.lora_A["default"] for layer in model.base_model.model.model.layers]


def found(model):
    report = kbitlint.check(model, select=CODE)
    return [(v.at.path.removeprefix("base_model.model."), v.severity.value) for v in report.violations]


def test_two_parameters_on_one_memory_change_together():
    model, (first, second) = model_and_factors()
    second.weight.data = first.weight.data

    assert found(model) == [(SECOND, "warning")]
    with torch.no_grad():
        second.weight.add_(1)
    assert torch.equal(first.weight, second.weight)


def test_an_expanded_parameter_cannot_be_written():
    model, (first, _) = model_and_factors()
    first.weight = nn.Parameter(torch.ones(1, 64).expand(4, -1))

    assert found(model) == [(FIRST, "error")]
    with pytest.raises(RuntimeError, match="single memory location"), torch.no_grad():
        first.weight.add_(1)


def test_neighbours_in_one_storage_and_tied_modules_do_not_overlap():
    model, (first, second) = model_and_factors()
    flat = torch.ones(2, 4, 64)
    first.weight.data, second.weight.data = flat[0], flat[1]

    assert found(model) == []
    second.weight = first.weight
    assert found(model) == []
