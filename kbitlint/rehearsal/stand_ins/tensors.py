"""Tensors of a rehearsal: they stay where they are, and those without values answer what a script reads from them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from kbitlint.model.trace.unknown_values import on_meta
from kbitlint.rehearsal.inside.imports import replace

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from kbitlint.rehearsal.inside.record import Record

_CUDA = "cuda"
#: values of an array that has memory of its own
_LARGE = 2**26


def keep_here(record: Record) -> None:
    """Drop the device from every move of a module or tensor, and from every creation of a tensor."""
    replace(nn.Module, "to", _module_to)
    replace(nn.Module, "cuda", lambda _: lambda self, *__, **___: self)
    replace(Tensor, "cuda", lambda _: lambda self, *__, **___: self)
    replace(Tensor, "pin_memory", lambda _: lambda self, *__, **___: self)
    mode = _Here(record)
    mode.__enter__()  # for the whole script: nothing leaves it


def is_cuda(value: Any) -> bool:
    """Return whether a value names a GPU, as a device, a string or a number."""
    if isinstance(value, torch.device):
        return value.type == _CUDA
    return (isinstance(value, str) and value.split(":")[0] == _CUDA) or type(value) is int


def _module_to(original: Any) -> Any:
    def to(self: nn.Module, *arguments: Any, **options: Any) -> nn.Module:
        kept = [one for one in arguments if not _is_place(one)]
        rest = {name: one for name, one in options.items() if name not in ("device", "non_blocking")}
        tensors = [one for one in kept if isinstance(one, Tensor)]
        if tensors:
            kept = [one.dtype if isinstance(one, Tensor) else one for one in kept]
        kept = [one for one in kept if one is not None and not isinstance(one, bool)]
        return original(self, *kept, **rest) if kept or rest else self  # type: ignore[no-any-return]  # torch's own

    return to


def _is_place(value: Any) -> bool:
    return isinstance(value, (torch.device, str)) or type(value) is int


class _Here(TorchFunctionMode):
    """A function mode that keeps tensors where they are, and lets tensors with and without values meet."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a torch function on tensors that stay where they are."""
        kwargs = kwargs or {}
        if self._record.paused:
            return func(*args, **kwargs)
        if func in _PLACES and args[0].is_meta and asks_for_place(self._record, sys._getframe(1)):  # noqa: SLF001  # the caller
            return _PLACES[func]
        if func is torch.device and args and type(args[0]) is int:
            return torch.device(_CUDA, args[0])
        if func is Tensor.to:
            return _tensor_to(args[0], args[1:], kwargs)
        if func in _VALUES and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return self._value(func, args)
        if func is Tensor.__getitem__ and _picks_unknown(*args):
            return args[0].flatten(0, args[1].dim() - 1)  # all of them: how many a mask picks is a value
        if kwargs and (is_cuda(kwargs.get("device")) or self._is_of_model(kwargs.get("device"), sys._getframe(1))):  # noqa: SLF001  # the caller
            kwargs = {**kwargs, "device": "cpu"}
        kwargs.pop("pin_memory", None)
        try:
            return self._dated(func, func(*args, **kwargs))
        except (RuntimeError, NotImplementedError):
            if not _mixed((args, kwargs)):
                raise
            return func(*on_meta(args), **on_meta(kwargs))

    def _value(self, func: Any, args: Any) -> Any:
        """Return the answer to a question for values that a tensor lacks."""
        self._record.guessed = True
        if func in _COMPARISONS and len(args) > 1:
            return _is_old(args[0], self._record) == _is_old(args[1], self._record)
        return _VALUES[func](args[0])

    def _dated(self, func: Any, made: Any) -> Any:
        """Return a result. A copy without values notes how many trainings had been reached when it was made."""
        if func is Tensor.clone and made.is_meta:
            setattr(made, _MADE, self._record.trainings)
        return made

    def _is_of_model(self, device: Any, frame: FrameType) -> bool:
        """Return whether a caller makes its data on the device of a model without weights: there they have values."""
        return isinstance(device, torch.device) and device.type == "meta" and asks_for_place(self._record, frame)


#: questions for the place of a tensor -> the answer for one without values, which a real run has on the GPU
_PLACES: dict[Any, Any] = {
    Tensor.device.__get__: torch.device(_CUDA, 0),  # type: ignore[attr-defined]  # a descriptor
    Tensor.is_cuda.__get__: True,  # type: ignore[attr-defined]  # see above
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]  # see above
    Tensor.get_device: 0,
}


#: the method of PEFT's layers that casts a new adapter to the dtype of its layer, unless the adapter is on meta
_MOVES_ADAPTERS = "_move_adapter_to_device_of_base_layer"
#: frames between a question and its asker: PEFT passes a model's properties on, and a mode inside this one its functions
_PASSING = frozenset(("__getattr__", "<genexpr>", "__torch_function__"))
_WITHOUT_DATA = [False]


def adapters_without_data(given: bool | None = None) -> bool:  # noqa: FBT001  # a setting
    """Return whether new adapters have no data in a real run either. A value is set first."""
    if given is not None:
        _WITHOUT_DATA[0] = given
    return _WITHOUT_DATA[0]


def asks_for_place(record: Record, frame: FrameType | None) -> bool:
    """Return whether the caller places data by an answer: the user's code, TRL, or PEFT's move of a new adapter.

    Loaders look for meta tensors themselves.
    """
    while frame is not None and frame.f_code.co_name in _PASSING:
        frame = frame.f_back
    if frame is None:
        return False
    if frame.f_code.co_name == _MOVES_ADAPTERS:
        return not adapters_without_data()
    return str(frame.f_globals.get("__name__", "")).startswith("trl.") or record.is_users(frame.f_code.co_filename)


def _tensor_to(tensor: Tensor, arguments: Any, options: dict[str, Any]) -> Tensor:
    """Apply ``tensor.to(...)`` without its device: data that follow a model onto meta keep their values."""
    dtype = options.get("dtype")
    for one in arguments:
        if isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, Tensor):
            dtype = one.dtype
    return tensor if dtype is None or dtype == tensor.dtype else tensor.type(dtype)


def _number(tensor: Tensor) -> Any:
    return 1.0 if tensor.is_floating_point() else tensor.dtype is torch.bool or 1


def _nested(tensor: Tensor) -> Any:
    value = _number(tensor)

    def filled(shape: tuple[int, ...]) -> Any:
        return [filled(shape[1:]) for _ in range(shape[0])] if shape else value

    return filled(tuple(tensor.shape))


def _array(tensor: Tensor) -> Any:
    import numpy as np  # torch brings it only where it is installed

    dtype, shape = (
        "float32" if tensor.is_floating_point() else "bool" if tensor.dtype is torch.bool else "int64",
        tuple(tensor.shape),
    )
    return np.ones(shape, dtype) if tensor.numel() < _LARGE else np.broadcast_to(np.ones((), dtype), shape)


def _everywhere(value: bool) -> Callable[[Tensor], Tensor]:  # noqa: FBT001  # a value of a tensor
    return lambda tensor: torch.full((), value, device="cpu").expand(tensor.shape)  # a single value in memory


#: methods that read values -> their answer for a tensor without values
_VALUES: dict[Any, Callable[[Tensor], Any]] = {
    Tensor.item: _number,
    Tensor.tolist: _nested,
    Tensor.__float__: lambda tensor: float(_number(tensor)),
    Tensor.__int__: lambda tensor: int(_number(tensor)),
    Tensor.__bool__: lambda _: True,
    Tensor.__format__: lambda tensor: str(_number(tensor)),
    Tensor.cpu: lambda tensor: tensor,
    Tensor.numpy: _array,
    torch.allclose: lambda _: True,
    Tensor.allclose: lambda _: True,
    torch.equal: lambda _: True,
    Tensor.equal: lambda _: True,
    torch.is_nonzero: lambda _: True,
    **dict.fromkeys((torch.isnan, Tensor.isnan, torch.isinf, Tensor.isinf), _everywhere(value=False)),
    **dict.fromkeys((torch.isfinite, Tensor.isfinite), _everywhere(value=True)),
}


#: comparisons of all values: a copy from before a training differs from what was trained
_COMPARISONS = frozenset((torch.equal, Tensor.equal, torch.allclose, Tensor.allclose))
#: the attribute of a copy: how many trainings had been reached when it was made
_MADE = "kbitlint_made"


def _is_old(value: Any, record: Record) -> bool:
    """Return whether a tensor is a copy from before the last training."""
    return bool(getattr(value, _MADE, record.trainings) < record.trainings)


def _picks_unknown(tensor: Any, index: Any) -> bool:
    """Return whether an index is a mask, and it or the tensor has no values."""
    return isinstance(index, Tensor) and index.dtype is torch.bool and index.dim() > 0 and (tensor.is_meta or index.is_meta)


def _mixed(values: Any) -> bool:
    """Return whether some tensors have values and some have none."""
    return len({leaf.is_meta for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}) == 2
