from __future__ import annotations

import pytest
import tiny
import torch

import kbitlint
from kbitlint.context import Strategy, TrainingContext

CODE = "KB101"


def found(model):
    return list(kbitlint.check(model, select=CODE).violations)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_norms_are_flagged_with_their_dtypes(dtype):
    model = tiny.load(dtype=dtype)

    name = str(dtype).removeprefix("torch.")
    assert [(v.at.path, v.message, v.evidence["dtypes"]) for v in found(model)] == [
        (path, f"norm weights are {name}, not float32; the computation is in float32", {"weight": name})
        for path in (
            "model.layers.0.input_layernorm",
            "model.layers.0.post_attention_layernorm",
            "model.layers.1.input_layernorm",
            "model.layers.1.post_attention_layernorm",
            "model.norm",
        )
    ]


class Low(torch.nn.Module):
    """A norm without a cast: in bfloat16 its statistics are bfloat16 too."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(64, dtype=torch.bfloat16), requires_grad=False)

    def forward(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6)


def computed_in(norm):
    """The dtype of the mean square, seen at the kernel."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = set()

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "mean" in str(function):
                seen.add(args[0].dtype)
            return function(*args, **(kwargs or {}))

    with Watching(), torch.no_grad():
        norm(torch.ones(1, 2, 64, dtype=torch.bfloat16))
    return seen


def test_the_message_says_what_the_kernel_of_this_norm_computes_in():
    model = tiny.prepared()
    model.model.norm = Low()
    (low,) = found(model)
    first = next(v for v in found(tiny.load()) if v.at.path == "model.norm")

    assert computed_in(Low()) == {torch.bfloat16}
    assert computed_in(tiny.load().model.norm) == {torch.float32}
    assert low.message == "norm weights are bfloat16, not float32; the computation is in bfloat16 too"
    assert first.message == "norm weights are bfloat16, not float32; the computation is in float32"
    torch_norm = torch.nn.LayerNorm(64, dtype=torch.bfloat16).requires_grad_(False)
    model.model.norm = torch_norm
    assert found(model)[0].message.endswith("; the computation is in float32")


def test_float32_norms_are_not_flagged():
    assert found(tiny.load(dtype=torch.float32)) == []


def test_norms_that_peft_prepared_are_not_flagged():
    from peft import prepare_model_for_kbit_training

    assert found(prepare_model_for_kbit_training(tiny.load())) == []


def test_a_model_that_is_not_quantized_is_skipped():
    report = kbitlint.check(tiny.load(kind="none"), select=CODE)

    assert [(skip.code, skip.reason) for skip in report.skips] == [(CODE, "no layer is quantized")]


def test_a_model_that_fsdp_1_shards_is_skipped():
    report = kbitlint.check(tiny.load(), select=CODE, context=TrainingContext(strategy=Strategy.FSDP1), trace=False)

    assert [(skip.code, skip.reason) for skip in report.skips] == [(CODE, "FSDP1 shards parameters of one dtype only")]
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
