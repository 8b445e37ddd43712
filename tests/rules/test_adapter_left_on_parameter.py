from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB606"
EXPERTS = [f"model.layers.{i}.mlp.experts.gate_up_proj" for i in (0, 1)]

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 5 stacks experts in parameters")


def adapted(*, packed, checkpointed=False, **config):
    model = tiny.load("mixtral (MoE)")
    kbitlint.fix(model, unsafe=packed)
    if not checkpointed:
        model.gradient_checkpointing_disable()
    return get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": [], "target_parameters": EXPERTS, **config}))


def found(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_packed_experts_keep_the_adapter_and_the_next_pass_raises(checkpointed):
    model = adapted(packed=True, checkpointed=checkpointed)

    assert found(model) == [(path, "error") for path in EXPERTS]
    errors = [tiny.step(model).error for _ in range(2)]
    assert errors[-1] == "only Tensors of floating point dtype can require gradients"
    assert (errors[0] is None) is not checkpointed  # the recomputation is a second pass


def test_experts_that_are_not_packed_let_it_go():
    model = adapted(packed=False)

    assert found(model) == []
    assert [tiny.step(model).trains for _ in range(2)] == [True, True]


def test_adapters_on_modules_beside_packed_experts_are_fine():
    model = adapted(packed=True, target_modules=["q_proj"], target_parameters=None)

    assert found(model) == []
    assert [tiny.step(model).trains for _ in range(2)] == [True, True]
