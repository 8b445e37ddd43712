from __future__ import annotations

import plants
import tiny
import torch

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB106"


def found(model, **context):
    violations = kbitlint.check(model, select=CODE, context=TrainingContext(**context)).violations
    return {(v.at.path, v.message, v.severity.value) for v in violations}


def test_float16_layers_of_a_bfloat16_model_are_flagged_one_by_one():
    model = tiny.load(compute=torch.float16)

    assert found(model) == {
        (path, "4-bit layer computes in float16 while the model is bfloat16", "warning") for path in plants.QUANTIZED
    }


def test_such_a_layer_gives_inf_where_the_same_layer_in_bfloat16_does_not():
    finite = []
    for compute in (torch.float16, torch.bfloat16):
        layer = tiny.load(compute=compute).model.layers[0].mlp.up_proj
        finite.append(bool(layer(torch.full((1, 64), 7e4, dtype=torch.bfloat16)).isfinite().all()))

    assert finite == [False, True]


def test_the_fix_is_unsafe_and_computes_in_bfloat16():
    model = tiny.load(compute=torch.float16)

    assert len(kbitlint.fix(model, select=CODE).violations) == len(plants.QUANTIZED)
    assert kbitlint.fix(model, select=CODE, unsafe=True).violations == ()
    assert model.model.layers[0].mlp.up_proj.compute_dtype == torch.bfloat16


def test_float16_autocast_is_flagged_once():
    assert found(tiny.load(), autocast_dtype="float16") == {
        ("", "autocast computes in float16 while the model is bfloat16", "warning")
    }


def test_eight_bit_layers_are_worth_knowing():
    assert found(tiny.load(kind="int8")) == {
        ("", "8-bit layers cast activations to float16 on CUDA while the model is bfloat16", "info")
    }


def test_one_dtype_throughout_is_not_flagged():
    assert found(tiny.load(), autocast_dtype="bfloat16") == set()


def test_a_float16_model_is_not_flagged_and_an_unquantized_one_is_skipped():
    assert found(tiny.load(dtype=torch.float16)) == set()
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"
