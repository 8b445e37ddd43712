"""The GPU that a rehearsed script sees: its answers, without a GPU."""

from __future__ import annotations

import functools
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.lazy_dataclass import dataclass
from kbitlint.rehearsal.inside.imports import replace
from kbitlint.rehearsal.stand_ins import tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.rehearsal.inside.record import Record


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
        for module in (torch.cuda.random, torch.cuda.memory):  # Trainer asks these for the states of generators
            if hasattr(module, name):
                replace(module, name, functools.partial(_unless_paused, record, answer))
    for name, answer in _ACCELERATOR.items():
        if hasattr(torch, "accelerator") and hasattr(torch.accelerator, name):
            replace(torch.accelerator, name, functools.partial(_for_users, record, answer))
    torch.cuda.Stream = torch.cuda.Event = _Stream  # type: ignore[assignment, misc]  # stand-ins
    if torch.version.cuda is None:
        torch.version.cuda = "12.8"
    tensors.keep_here(record)


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
