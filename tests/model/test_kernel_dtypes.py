"""Every line of the dtype tables, against the real CPU kernels and the real autocast of the installed torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from kbitlint.model.trace import kernel_dtypes

HALF, WIDE = torch.bfloat16, torch.float32


def ones(*shape, dtype=WIDE):
    return torch.ones(*shape, dtype=dtype)


ROW = torch.zeros(1, dtype=torch.long)
CELLS = torch.zeros(1, 2, dtype=torch.long)

#: operator -> a call in which the two dtypes meet
MIXED = {
    "mm": lambda a, b: torch.mm(ones(2, 2, dtype=a), ones(2, 2, dtype=b)),
    "bmm": lambda a, b: torch.bmm(ones(1, 2, 2, dtype=a), ones(1, 2, 2, dtype=b)),
    "addmm": lambda a, b: torch.addmm(ones(2, dtype=a), ones(2, 2, dtype=b), ones(2, 2, dtype=b)),
    "baddbmm": lambda a, b: torch.baddbmm(ones(1, 2, 2, dtype=a), ones(1, 2, 2, dtype=b), ones(1, 2, 2, dtype=b)),
    "addbmm": lambda a, b: torch.addbmm(ones(2, 2, dtype=a), ones(1, 2, 2, dtype=b), ones(1, 2, 2, dtype=b)),
    "mv": lambda a, b: torch.mv(ones(2, 2, dtype=a), ones(2, dtype=b)),
    "addmv": lambda a, b: torch.addmv(ones(2, dtype=a), ones(2, 2, dtype=a), ones(2, dtype=b)),
    "dot": lambda a, b: torch.dot(ones(2, dtype=a), ones(2, dtype=b)),
    "vdot": lambda a, b: torch.vdot(ones(2, dtype=a), ones(2, dtype=b)),
    "convolution": lambda a, b: functional.conv1d(ones(1, 1, 3, dtype=a), ones(1, 1, 1, dtype=b)),
    "index_add": lambda a, b: ones(2, 2, dtype=a).index_add(0, ROW, ones(1, 2, dtype=b)),
    "index_copy": lambda a, b: ones(2, 2, dtype=a).index_copy(0, ROW, ones(1, 2, dtype=b)),
    "index_put": lambda a, b: ones(2, 2, dtype=a).index_put((ROW,), ones(1, 2, dtype=b)),
    "scatter": lambda a, b: ones(2, 2, dtype=a).scatter(0, CELLS, ones(1, 2, dtype=b)),
    "scatter_add": lambda a, b: ones(2, 2, dtype=a).scatter_add(0, CELLS, ones(1, 2, dtype=b)),
    "scatter_reduce": lambda a, b: ones(2, 2, dtype=a).scatter_reduce(0, CELLS, ones(1, 2, dtype=b), "sum"),
    "masked_scatter": lambda a, b: ones(2, dtype=a).masked_scatter(torch.tensor([True, False]), ones(2, dtype=b)),
    "lerp": lambda a, b: torch.lerp(ones(2, dtype=a), ones(2, dtype=b), 0.5),
    "grid_sampler_2d": lambda a, b: functional.grid_sample(
        ones(1, 1, 2, 2, dtype=a), ones(1, 2, 2, 2, dtype=b), align_corners=False
    ),
    "nll_loss_forward": lambda a, b: functional.nll_loss(ones(2, 2, dtype=a), torch.tensor([0, 1]), ones(2, dtype=b)),
}
#: these take any mix, and give the wider dtype or the first one's
PROMOTING = {
    "add": lambda a, b: ones(2, dtype=a) + ones(2, dtype=b),
    "cat": lambda a, b: torch.cat([ones(2, dtype=a), ones(2, dtype=b)]),
    "where": lambda a, b: torch.where(torch.tensor(True), ones(2, dtype=a), ones(2, dtype=b)),
    "addcmul": lambda a, b: torch.addcmul(ones(2, dtype=a), ones(2, dtype=a), ones(2, dtype=b)),
    "copy": lambda a, b: ones(2, dtype=a).copy_(ones(2, dtype=b)),
    "mse_loss": lambda a, b: functional.mse_loss(ones(2, dtype=a), ones(2, dtype=b)),
    "rms_norm": lambda a, b: functional.rms_norm(ones(2, dtype=a), (2,), ones(2, dtype=b)),
}
NORMS = {
    "layer_norm": lambda a, b: functional.layer_norm(ones(2, 2, dtype=a), (2,), ones(2, dtype=b), ones(2, dtype=b)),
    "group_norm": lambda a, b: functional.group_norm(ones(1, 2, 2, dtype=a), 1, ones(2, dtype=b), ones(2, dtype=b)),
    "batch_norm": lambda a, b: functional.batch_norm(
        ones(2, 2, 2, dtype=a), ones(2, dtype=b), ones(2, dtype=b), ones(2, dtype=b), ones(2, dtype=b), training=True
    ),
}


class _Asked(TorchDispatchMode):
    """Runs operators for real and asks the table about each."""

    def __init__(self, device):
        super().__init__()
        self.device, self.refused = device, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if kernel_dtypes.refused(func, args, self.device):
            self.refused.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def outcome(call, first, second, device="cpu"):
    """(whether the real kernel raises, whether the table says so)."""
    asked = _Asked(device)
    try:
        with asked:
            call(first, second)
    except RuntimeError:
        return True, bool(asked.refused)
    return False, bool(asked.refused)


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
    assert kernel_dtypes.refused_function(call.__name__, (values,), "cuda") == ()


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

CALLS = {
    "linear": lambda x: functional.linear(x, x),
    "matmul": lambda x: x @ x,
    "bmm": lambda x: torch.bmm(x[None], x[None]),
    "einsum": lambda x: torch.einsum("ij,jk->ik", x, x),
    "conv1d": lambda x: functional.conv1d(x[None], x[:, :, None]),
    "sdpa": lambda x: functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    "cat": lambda x: torch.cat([x, x.bfloat16()]),
    "softmax": lambda x: functional.softmax(x, -1),
    "layer_norm": lambda x: functional.layer_norm(x, (4,)),
    "cross_entropy": lambda x: functional.cross_entropy(x, torch.tensor([0, 1, 2, 3])),
    "mse_loss": lambda x: functional.mse_loss(x, x),
    "sum": lambda x: x.sum(),
    "pow": lambda x: x**2,
    "prod": lambda x: x.prod(0),
    "add": lambda x: x + x,
}


class _Emulated(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = kernel_dtypes.autocast(getattr(func, "__name__", ""), args, kwargs or {}, "cpu", HALF)
        return func(*args, **kwargs)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [HALF, WIDE])
def test_autocast_on_the_cpu_gives_the_dtypes_that_the_real_one_gives(name, dtype):
    value = torch.ones(4, 4, dtype=dtype)
    with torch.autocast("cpu", HALF):
        real = CALLS[name](value).dtype
    with _Emulated():
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
    class Cuda(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            args, kwargs = kernel_dtypes.autocast(getattr(func, "__name__", ""), args, kwargs or {}, "cuda", HALF)
            return func(*args, **kwargs)

    value = torch.ones(4, 4, dtype=HALF)
    with Cuda():
        assert CALLS[call](value).dtype is gives
