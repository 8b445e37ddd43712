from __future__ import annotations

import pytest
import tiny
import torch

import kbitlint

CODE = "KB101"


def found(model):
    return list(kbitlint.check(model, select=CODE).violations)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_norms_are_flagged_with_their_dtypes(dtype):
    model = tiny.load(dtype=dtype)

    name = str(dtype).removeprefix("torch.")
    assert [(v.at.path, v.message, v.evidence["dtypes"]) for v in found(model)] == [
        (path, f"norm weights are {name}, not float32", {"weight": name})
        for path in (
            "model.layers.0.input_layernorm",
            "model.layers.0.post_attention_layernorm",
            "model.layers.1.input_layernorm",
            "model.layers.1.post_attention_layernorm",
            "model.norm",
        )
    ]


def test_float32_norms_are_not_flagged():
    assert found(tiny.load(dtype=torch.float32)) == []


def test_norms_that_peft_prepared_are_not_flagged():
    from peft import prepare_model_for_kbit_training

    assert found(prepare_model_for_kbit_training(tiny.load())) == []


def test_a_model_that_is_not_quantized_is_skipped():
    report = kbitlint.check(tiny.load(kind="none"), select=CODE)

    assert [(skip.code, skip.reason) for skip in report.skips] == [(CODE, "no layer is quantized")]
    assert report.violations == ()


def test_a_bare_parameter_that_acts_as_a_norm_gets_an_unsafe_fix():
    model = tiny.prepared()
    model.model.register_parameter("final_norm_weight", torch.nn.Parameter(torch.ones(64, dtype=torch.bfloat16), False))

    (violation,) = found(model)

    assert (violation.at.path, violation.message, violation.fix.safety.value) == (
        "model.final_norm_weight",
        "parameter acting as a norm is bfloat16, not float32",
        "unsafe",
    )
    assert kbitlint.fix(model, select=CODE).violations == (violation,)
    assert kbitlint.fix(model, select=CODE, unsafe=True).violations == ()
    assert model.model.final_norm_weight.dtype == torch.float32


def test_a_norm_whose_code_reads_its_own_dtype_gives_that_dtype_back():
    model = tiny.load("t5 (encoder-decoder)")
    norm = model.encoder.final_layer_norm
    kbitlint.fix(model, select=CODE)

    assert norm.weight.dtype == torch.float32
    assert norm(torch.ones(1, 2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert norm(torch.ones(1, 2, 64)).dtype == torch.bfloat16  # as before the fix: T5 casts to the weight's dtype


def test_a_transparent_norm_keeps_half_precision_out_of_autocast_and_in_it():
    model = tiny.load()
    kbitlint.fix(model, select=CODE)
    norm = model.model.norm
    half = torch.randn(1, 2, 64, dtype=torch.bfloat16, requires_grad=True)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = norm(half)
    inside.sum().backward()

    assert (inside.dtype, norm(half).dtype, norm(half.float()).dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert half.grad is not None
    assert bool(half.grad.isfinite().all())
