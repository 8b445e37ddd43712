"""Every line of the dtype tables, against the real CPU kernels and the real autocast of the installed torch."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import CALLS, HALF, MIXED, NORMS, PROMOTING, WIDE, Emulated, ones, outcome

from kbitlint.model.trace import kernel_dtypes


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize(("first", "second"), [(HALF, WIDE), (WIDE, HALF), (torch.float16, HALF)])
def test_what_the_table_refuses_the_kernel_refuses(name, first, second):
    assert outcome(MIXED[name], first, second) == (True, True)


@pytest.mark.parametrize(("first", "second"), [(HALF, WIDE), (WIDE, HALF), (torch.float16, HALF)])
def test_what_addmv_adds_to_is_refused_where_this_torch_refuses_it(first, second):
    real, said = outcome(lambda a, b: torch.addmv(ones(2, dtype=a), ones(2, 2, dtype=b), ones(2, dtype=b)), first, second)

    assert real is said


@pytest.mark.parametrize(
    "call", [torch.fft.fft, torch.fft.fftn, torch.fft.rfft, torch.fft.ifft2], ids=lambda call: call.__name__
)
@pytest.mark.parametrize("dtype", [HALF, torch.float16, WIDE])
def test_fourier_transforms_of_the_cpu_take_no_half_precision(call, dtype):
    values = ones(2, 4, 8, dtype=dtype)
    refused = kernel_dtypes.refused_function(call.__name__, (values,), "cpu")

    if dtype is WIDE:
        assert call(values).dtype is torch.complex64
        assert refused == ()
    else:
        with pytest.raises(RuntimeError, match="Unsupported dtype"):
            call(values)
        assert refused == (dtype,)
    assert kernel_dtypes.refused_function(call.__name__, (values,), "cuda") == ((HALF,) if dtype is HALF else ())


@pytest.mark.parametrize(("device", "refused"), [("cpu", ()), ("cuda", (HALF, WIDE))])
def test_a_scalar_beyond_the_range_of_half_precision_becomes_no_tensor_on_cuda(device, refused):
    beyond, call = torch.finfo(torch.float32).min, torch.ops.aten.scalar_tensor.default

    assert torch.scalar_tensor(beyond, dtype=HALF) == -torch.inf
    assert kernel_dtypes.refused(call, (beyond,), device, HALF) == refused
    for number, dtype in ((-3.0e38, HALF), (-torch.inf, HALF), (beyond, WIDE), (beyond, None)):
        assert kernel_dtypes.refused(call, (number,), device, dtype) == ()


@pytest.mark.parametrize("name", [*MIXED, *PROMOTING, *NORMS])
@pytest.mark.parametrize("dtype", [HALF, WIDE])
def test_one_dtype_is_never_refused(name, dtype):
    assert outcome({**MIXED, **PROMOTING, **NORMS}[name], dtype, dtype) == (False, False)


@pytest.mark.parametrize("name", PROMOTING)
def test_operators_that_promote_are_not_refused(name):
    assert outcome(PROMOTING[name], HALF, WIDE) == outcome(PROMOTING[name], WIDE, HALF) == (False, False)


@pytest.mark.parametrize("name", NORMS)
def test_norms_on_the_cpu_take_float32_parameters_over_half_input_and_no_other_mix(name):
    assert outcome(NORMS[name], HALF, WIDE) == (False, False)
    assert outcome(NORMS[name], WIDE, HALF) == (True, True)


def test_norms_on_cuda_take_no_mix_but_those_with_running_statistics():
    """From the kernels' source: layer_norm and group_norm read their parameters in the input's dtype."""
    said = {name: outcome(NORMS[name], HALF, WIDE, device="cuda")[1] for name in NORMS}

    assert said == {"layer_norm": True, "group_norm": True, "batch_norm": False}


def test_a_packed_weight_is_refused_beside_floats():
    assert outcome(MIXED["mm"], HALF, torch.uint8) == (True, True)


def test_a_fill_value_that_does_not_fit_is_refused():
    mask = torch.tensor([True, False])

    assert outcome(lambda a, _: ones(2, dtype=a).masked_fill(mask, -1e30), torch.float16, None) == (True, True)
    assert outcome(lambda a, _: ones(2, dtype=a).masked_fill(mask, float("-inf")), torch.float16, None) == (False, False)


# ------------------------------------------------------------------------------------------------- autocast


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [HALF, WIDE])
def test_autocast_on_the_cpu_gives_the_dtypes_that_the_real_one_gives(name, dtype):
    value = torch.ones(4, 4, dtype=dtype)
    with torch.autocast("cpu", HALF):
        real = CALLS[name](value).dtype
    with Emulated("cpu"):
        emulated = CALLS[name](value).dtype

    assert emulated is real


def _registered(key):
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")}
    kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return {name[6:].split(".")[0] for name in names if kernel(name, key)}


@pytest.mark.parametrize(("device", "key"), [("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")])
def test_every_operator_of_training_that_autocast_knows_is_in_the_table(device, key):
    does = kernel_dtypes.AUTOCAST[device]
    known = does.lower | does.upper | does.upper_result | does.widest
    trained = {
        *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "conv3d", "scaled_dot_product_attention"),
        *("layer_norm", "group_norm", "rms_norm", "softmax", "log_softmax", "pow", "rsqrt", "exp", "log", "sum", "cumsum"),
        *("nll_loss", "mse_loss", "prod", "cat", "stack", "index_copy", "scatter_add", "index_put", "softplus", "reciprocal"),
    }

    assert sorted(_registered(key) & trained - known) == []


@pytest.mark.parametrize(
    ("call", "gives"),
    [("softmax", WIDE), ("layer_norm", WIDE), ("sum", WIDE), ("pow", WIDE), ("linear", HALF), ("add", HALF)],
)
def test_autocast_on_cuda_gives_float32_where_cuda_computes_in_it(call, gives):
    value = torch.ones(4, 4, dtype=HALF)
    with Emulated("cuda"):
        assert CALLS[call](value).dtype is gives
