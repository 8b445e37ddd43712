"""The GPU that a rehearsed script sees: its answers, without a GPU. Tensors meant for it stay on the CPU or on meta."""

from __future__ import annotations

import functools
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kbitlint.lazy_dataclass import dataclass
from kbitlint.rehearsal.imports import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.rehearsal.record import Record


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU by its data sheet."""

    name: str
    capability: tuple[int, int]
    nbytes: int
    cores: int

    @property
    def has_bfloat16(self) -> bool:
        """Return whether its units compute in bfloat16. torch emulates it on older ones."""
        return self.capability[0] >= 8


DEVICES = {
    "h100": Device("NVIDIA H100 80GB HBM3", (9, 0), 85_017_755_648, 132),
    "a100": Device("NVIDIA A100-SXM4-80GB", (8, 0), 85_174_386_688, 108),
    "4090": Device("NVIDIA GeForce RTX 4090", (8, 9), 25_390_809_088, 128),
    "t4": Device("Tesla T4", (7, 5), 15_828_320_256, 40),
}
_CUDA = "cuda"
#: functions of ``torch.cuda`` that do nothing
_SILENT = (
    *("empty_cache", "synchronize", "ipc_collect", "init", "manual_seed", "manual_seed_all"),
    *("set_rng_state", "set_rng_state_all", "reset_accumulated_memory_stats", "set_stream"),
    *("reset_peak_memory_stats", "reset_max_memory_allocated", "set_per_process_memory_fraction"),
)


def install(record: Record) -> None:
    """Let ``torch.cuda`` answer as the device that the request names, until the process ends."""
    device = DEVICES[record.request.device_like]
    properties = SimpleNamespace(
        name=device.name,
        major=device.capability[0],
        minor=device.capability[1],
        total_memory=device.nbytes,
        multi_processor_count=device.cores,
        warp_size=32,
        is_integrated=False,
        is_multi_gpu_board=False,
        max_threads_per_multi_processor=2048,
    )
    chosen = [0]
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: max(1, record.request.command.ranks or 1),
        "current_device": lambda: chosen[0],
        "set_device": lambda place: chosen.__setitem__(0, _number_of(place)),
        "get_device_name": lambda *_, **__: device.name,
        "get_device_capability": lambda *_, **__: device.capability,
        "get_device_properties": lambda *_, **__: properties,
        "is_bf16_supported": lambda including_emulation=True: device.has_bfloat16 or bool(including_emulation),
        "mem_get_info": lambda *_, **__: (device.nbytes, device.nbytes),
        "get_arch_list": lambda: [f"sm_{device.capability[0]}{device.capability[1]}"],
    }
    zeros = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    answers |= dict.fromkeys(zeros, lambda *_, **__: 0)
    answers |= dict.fromkeys(_SILENT, lambda *_, **__: None)
    answers |= {"memory_summary": lambda *_, **__: "", "memory_stats": lambda *_, **__: {}, "memory_snapshot": lambda *_: []}
    answers |= dict.fromkeys(("utilization", "temperature", "power_draw", "clock_rate"), lambda *_, **__: 0)
    answers |= dict.fromkeys(("current_stream", "default_stream"), lambda *_, **__: _Stream())
    answers |= {"get_rng_state": lambda *_: torch.get_rng_state(), "get_rng_state_all": lambda: [torch.get_rng_state()]}
    answers |= {
        "stream": lambda *_: nullcontext(),
        "device": lambda *_: nullcontext(),
        "can_device_access_peer": lambda *_: True,
    }
    for name, answer in answers.items():
        replace(torch.cuda, name, functools.partial(_unless_paused, record, answer))
    for name, answer in _ACCELERATOR.items():
        if hasattr(torch, "accelerator") and hasattr(torch.accelerator, name):
            replace(torch.accelerator, name, functools.partial(_for_users, record, answer))
    torch.cuda.Stream = torch.cuda.Event = _Stream  # type: ignore[assignment, misc]  # stand-ins
    if torch.version.cuda is None:
        torch.version.cuda = "12.8"
    _keep_tensors_here(record)


def _number_of(place: Any) -> int:
    """Return the number of a GPU that a device, a string or a number names."""
    index = place if isinstance(place, int) else torch.device(place).index
    return index or 0


#: answers of ``torch.accelerator`` to the script; torch itself asks it where it pins memory
_ACCELERATOR: dict[str, Callable[..., Any]] = {
    "current_accelerator": lambda *_, **__: torch.device(_CUDA),
    "is_available": lambda: True,
    "device_count": lambda: 1,
}


def _for_users(record: Record, answer: Callable[..., Any], original: Any) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        asks = record.is_users(sys._getframe(1).f_code.co_filename)  # noqa: SLF001  # the caller
        return (answer if asks and not record.paused else original)(*arguments, **options)

    return function


class _Stream:
    """A stream or an event of a GPU: everything on it is done."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take the arguments of a stream or an event."""

    def elapsed_time(self, _: Any) -> float:
        """Return milliseconds."""
        return 1.0

    def query(self) -> bool:
        """Return whether everything is done."""
        return True

    def __getattr__(self, name: str) -> Any:
        """Return a method that does nothing, such as ``record`` and ``synchronize``."""
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


def _unless_paused(record: Record, answer: Callable[..., Any], original: Any) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        return (original if record.paused else answer)(*arguments, **options)

    function.__name__ = getattr(original, "__name__", "function")
    function.__module__ = "torch.cuda"
    return function


def _keep_tensors_here(record: Record) -> None:
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
        if func is torch.device and args and type(args[0]) is int:
            return torch.device(_CUDA, args[0])
        if func is Tensor.to:
            return _tensor_to(args[0], args[1:], kwargs)
        if func in _VALUES and args and isinstance(args[0], Tensor) and args[0].is_meta:
            self._record.guessed = True
            return _VALUES[func](args[0])
        if func is Tensor.__getitem__ and _picks_unknown(*args):
            return args[0].flatten(0, args[1].dim() - 1)  # all of them: how many a mask picks is a value
        if kwargs and is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": "cpu"}
        kwargs.pop("pin_memory", None)
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            if not _mixed((args, kwargs)):
                raise
            return func(*_on_meta(args), **_on_meta(kwargs))


def _tensor_to(tensor: Tensor, arguments: Any, options: dict[str, Any]) -> Tensor:
    """Apply ``tensor.to(...)`` without its device: the dtype counts, and a move onto meta."""
    dtype, to_meta = options.get("dtype"), str(options.get("device")) == "meta"
    for one in arguments:
        if isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, Tensor):
            dtype = one.dtype
        elif isinstance(one, (str, torch.device)) and str(one) == "meta":
            to_meta = True
    made = tensor if dtype is None else tensor.type(dtype) if dtype != tensor.dtype else tensor
    if to_meta and not made.is_meta:
        return torch.empty_like(made, device="meta")
    return made


def _number(tensor: Tensor) -> Any:
    return 1.0 if tensor.is_floating_point() else tensor.dtype is torch.bool or 1


def _nested(tensor: Tensor) -> Any:
    value = _number(tensor)

    def filled(shape: tuple[int, ...]) -> Any:
        return [filled(shape[1:]) for _ in range(shape[0])] if shape else value

    return filled(tuple(tensor.shape))


def _array(tensor: Tensor) -> Any:
    import numpy as np  # torch brings it only where it is installed

    return np.ones(tuple(tensor.shape), dtype="float32" if tensor.is_floating_point() else "int64")


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
}


def _picks_unknown(tensor: Any, index: Any) -> bool:
    """Return whether an index is a mask, and it or the tensor has no values."""
    return isinstance(index, Tensor) and index.dtype is torch.bool and index.dim() > 0 and (tensor.is_meta or index.is_meta)


def _mixed(values: Any) -> bool:
    """Return whether some tensors have values and some have none."""
    kinds = {tensor.is_meta for tensor in _tensors(values)}
    return len(kinds) == 2


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [tensor for one in values for tensor in _tensors(one)] if isinstance(values, (list, tuple)) else []


def _on_meta(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values if values.is_meta else torch.empty_like(values, device="meta")
    if isinstance(values, dict):
        return {name: _on_meta(one) for name, one in values.items()}
    return type(values)(_on_meta(one) for one in values) if type(values) in (list, tuple) else values
