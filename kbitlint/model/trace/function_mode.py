"""The function mode of the trace. It acts above autograd: on torch functions, on tensor methods, and on autocast.

Operators below autograd are in ``kbitlint.model.trace.dispatch_mode``.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kbitlint.model.trace import kernel_dtypes
from kbitlint.model.trace.dispatch_mode import CPU, META, MetaKernels, tensors_in
from kbitlint.model.trace.stubs import attend
from kbitlint.model.trace.unknown_values import one_hot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kbitlint.model.trace.ledger import Ledger


def _device(_: Ledger, func: Any, args: Any, __: Any) -> Any:
    """Return the CPU. Only torch's checkpoint reads the real device, since it compares devices with the mode on and off."""
    asks = sys._getframe(2).f_globals.get("__name__")  # noqa: SLF001  # the frame that reads the attribute
    return func(*args) if asks == "torch.utils.checkpoint" else CPU


def _itself(_: Ledger, __: Any, args: Any, ___: Any) -> Any:
    return args[0]


def _same_values(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Return True for tensors without contents, and count a guess."""
    if any(tensor.is_meta for tensor in tensors_in(args)):
        ledger.guess("equal")
        return True
    return func(*args, **kwargs)


def _split(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Split a tensor. If the sizes were guessed, the last part takes the rest.

    If the length was guessed, as that of ``nonzero``, the sizes tell the true one.
    """
    tensor = args[0]
    sizes = (
        args[1] if len(args) > 1 else kwargs.get("split_size_or_sections", kwargs.get("split_sizes", kwargs.get("split_size")))
    )
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if tensor.is_meta and isinstance(sizes, (list, tuple)) and ledger.guesses["tolist"]:
        rest = tensor.shape[dim] - sum(sizes)
        if rest and set(sizes) == {1}:
            return func(tensor, [*sizes[:-1], 1 + rest], dim)
    if tensor.is_meta and isinstance(sizes, (list, tuple)) and ledger.guesses["nonzero"] and sum(sizes) < tensor.shape[dim]:
        return func(tensor.narrow(dim, 0, sum(sizes)), sizes, dim)
    return func(*args, **kwargs)


def _tolist(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Return nested lists of ones (True for booleans) for a tensor without contents, and count a guess."""
    tensor = args[0]
    if not tensor.is_meta:
        return func(*args, **kwargs)
    ledger.guess("tolist")
    value: Any = 1.0 if tensor.is_floating_point() else tensor.dtype is torch.bool or 1

    def nested(shape: Sequence[int]) -> Any:
        return [nested(shape[1:]) for _ in range(shape[0])] if shape else value

    return nested(tuple(tensor.shape))


def _dropout(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Run dropout as the device does. The kernel of CUDA keeps a mask of booleans, that of the CPU one of floats."""
    given = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
    share, tensor = given.get("p", 0.5), given["input"]
    if ledger.device == "cuda" and not tensor.is_floating_point():  # as ``"fused_dropout" not implemented for 'Byte'``
        raise RuntimeError(f"dropout is not implemented for dtype {tensor.dtype}")
    fused = ledger.device == "cuda" and given.get("training", True) and not given.get("inplace") and 0 < share < 1
    return torch.native_dropout(tensor, share, True)[0] if fused and tensor.is_meta else func(*args, **kwargs)  # noqa: FBT003  # its own signature


def _numpy(ledger: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Return an array of zeros for a tensor without contents, and count a guess. An assignment of its rows is valid."""
    tensor = args[0]
    if not tensor.is_meta:
        return func(*args, **kwargs)
    ledger.guess("numpy")
    import numpy as np  # an optional dependency of torch, which this code has imported

    name = "float32" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return np.zeros(tuple(tensor.shape), dtype=name)  # zeros of torch would be on meta, below this mode


def _without_device(_: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Apply ``tensor.to(...)`` without a device: only the dtype and the copy flag count."""
    rest: list[Any] = []
    for value in args[1:]:
        if isinstance(value, Tensor):
            rest.append(value.dtype)
        elif not isinstance(value, (torch.device, str, int)) or isinstance(value, bool):
            rest.append(value)
    named = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
    if "other" in named:
        named["dtype"] = named.pop("other").dtype
    dtypes = [value for value in rest if isinstance(value, torch.dtype)]
    copies = [value for value in rest if isinstance(value, bool)]  # the positional order is (dtype, non_blocking, copy)
    if dtypes:
        named["dtype"] = dtypes[0]
    if len(copies) > 1 and copies[1]:
        named["copy"] = True
    if not named:
        return args[0]
    named.setdefault("dtype", args[0].dtype)
    return func(args[0], **named)


def _sound_of(_: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Return the sound of a spectrogram. The kernel reads the values of its window, so that sums of frames stand for it."""
    given = dict(zip(("input", "n_fft", "hop_length"), args, strict=False)) | kwargs
    frames = given["input"]
    if not frames.is_meta:
        return func(*args, **kwargs)
    hop = given.get("hop_length") or given["n_fft"] // 4
    samples = torch.view_as_real(frames).sum(-1).sum(-2).repeat_interleave(hop, -1)
    length = given.get("length") or hop * (frames.shape[-1] - (1 if given.get("center", True) else 0))
    return (
        samples[..., :length]
        if length <= samples.shape[-1]
        else torch.nn.functional.pad(samples, (0, length - samples.shape[-1]))
    )


def _on_meta(_: Ledger, func: Any, args: Any, kwargs: Any) -> Any:
    """Run a Fourier transform of frames, whose kernel compares the device of its window with that of its input."""
    if not args[0].is_meta:
        return func(*args, **kwargs)

    def moved(value: Any) -> Any:
        fixed = isinstance(value, Tensor) and not value.is_meta
        return torch.empty(value.shape, dtype=value.dtype, device=META) if fixed else value

    return func(*map(moved, args), **{name: moved(value) for name, value in kwargs.items()})


_DEVICE_QUERIES: dict[Any, Callable[[Ledger, Any, Any, Any], Any]] = {
    Tensor.device.__get__: _device,  # type: ignore[attr-defined]  # a getset descriptor
    Tensor.to: _without_device,
    Tensor.cpu: _itself,
    Tensor.cuda: _itself,
    Tensor.tolist: _tolist,
    Tensor.numpy: _numpy,
    Tensor.__array__: _numpy,
    Tensor.split: _split,
    Tensor.split_with_sizes: _split,
    torch.split: _split,
    **dict.fromkeys((torch.stft, Tensor.stft), _on_meta),
    **dict.fromkeys((torch.istft, Tensor.istft), _sound_of),
    torch.allclose: _same_values,
    torch.equal: _same_values,
    torch.nn.functional.one_hot: one_hot,
    torch.nn.functional.dropout: _dropout,
}


class PretendCPU(TorchFunctionMode):
    """A function mode in which all tensors seem to be on the CPU.

    It also applies autocast, which torch does not support on the meta device.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a torch function. Calls that would reveal the meta device get a replacement result."""
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.OpOverload):  # noqa: SLF001  # an operator that MetaKernels calls, not a function of the model's code
            return func(*args, **kwargs)
        answer = _DEVICE_QUERIES.get(func)
        if answer is not None:
            return answer(self.ledger, func, args, kwargs)
        if kwargs and kwargs.get("device") not in (None, "meta", META):
            kwargs = {**kwargs, "device": CPU}
        dtype = autocast_dtype(self.ledger.device)
        if dtype is not None:
            args, kwargs = kernel_dtypes.autocast(getattr(func, "__name__", ""), args, kwargs, self.ledger.device, dtype)
        dtypes = kernel_dtypes.refused_function(getattr(func, "__name__", ""), args, self.ledger.device)
        if dtypes:
            # the CPU kernel raises this; the meta kernel may accept the dtype
            raise RuntimeError(f"Unsupported dtype {dtypes[0]}")
        if func is torch.nn.functional.scaled_dot_product_attention:
            return attend(*args, **kwargs, device=self.ledger.device)
        return func(*args, **kwargs)


@contextlib.contextmanager
def autocast_region(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Run the body of the ``with`` statement in an autocast region that the model's code sees as that of a device.

    Tensors seem to be on the CPU, so the region is one of the CPU. On CUDA ``torch.is_autocast_enabled()`` is true as well,
    and PEFT then leaves the casts to autocast. ``torch.autocast("cuda")`` would disable itself where no GPU is.
    """
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with torch.autocast("cpu", dtype=dtype):
        try:
            if device == "cuda":
                torch.set_autocast_enabled("cuda", True)  # noqa: FBT003  # torch's own signature
                torch.set_autocast_dtype("cuda", dtype)
            yield
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])


def autocast_dtype(device: str = "cpu") -> torch.dtype | None:
    """Return the dtype of the enclosing autocast region, or None outside of a region.

    Code disables a region by the device of a tensor, which seems to be the CPU, or by the name ``cuda``.
    """
    on = {name: torch.is_autocast_enabled(name) for name in ("cpu", "cuda")}
    if device == "cuda" and on["cuda"] and not on["cpu"]:
        return None
    return next((torch.get_autocast_dtype(name) for name in on if on[name]), None)


@contextlib.contextmanager
def weightless(ledger: Ledger) -> Iterator[None]:
    """Run the body of the ``with`` statement without weights, and record its events in the ledger."""
    with PretendCPU(ledger), MetaKernels(ledger):
        yield
