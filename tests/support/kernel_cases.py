"""Calls in which dtypes meet, for the tests of the dtype tables on the CPU and on a GPU."""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from kbitlint.model.trace import kernel_dtypes

HALF, WIDE = torch.bfloat16, torch.float32


def ones(*shape, dtype=WIDE):
    return torch.ones(*shape, dtype=dtype)


def row():
    return torch.zeros(1, dtype=torch.long)


def cells():
    return torch.zeros(1, 2, dtype=torch.long)


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
    "index_add": lambda a, b: ones(2, 2, dtype=a).index_add(0, row(), ones(1, 2, dtype=b)),
    "index_copy": lambda a, b: ones(2, 2, dtype=a).index_copy(0, row(), ones(1, 2, dtype=b)),
    "index_put": lambda a, b: ones(2, 2, dtype=a).index_put((row(),), ones(1, 2, dtype=b)),
    "scatter": lambda a, b: ones(2, 2, dtype=a).scatter(0, cells(), ones(1, 2, dtype=b)),
    "scatter_add": lambda a, b: ones(2, 2, dtype=a).scatter_add(0, cells(), ones(1, 2, dtype=b)),
    "scatter_reduce": lambda a, b: ones(2, 2, dtype=a).scatter_reduce(0, cells(), ones(1, 2, dtype=b), "sum"),
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


#: function -> a call of it, for autocast
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


class Asked(TorchDispatchMode):
    """Runs operators for real and asks the table about each."""

    def __init__(self, device):
        super().__init__()
        self.device, self.refused = device, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if kernel_dtypes.refused(func, args, self.device):
            self.refused.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Emulated(torch.overrides.TorchFunctionMode):
    """Casts arguments as the table says that autocast on a device does."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = kernel_dtypes.autocast(getattr(func, "__name__", ""), args, kwargs or {}, self.device, HALF)
        return func(*args, **kwargs)


def outcome(call, first, second, device="cpu", *, on="cpu"):
    """Return (whether the real kernel of ``on`` raises, whether the table of ``device`` says so)."""
    asked = Asked(device)
    try:
        with asked, torch.device(on):
            call(first, second)
    except RuntimeError:
        return True, bool(asked.refused)
    return False, bool(asked.refused)
