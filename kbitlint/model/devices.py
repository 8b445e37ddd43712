"""The accelerators of this machine."""

from __future__ import annotations

from typing import Any

import torch

from kbitlint.errors import KbitlintError
from kbitlint.extras import load_bitsandbytes
from kbitlint.sizes import size
from kbitlint.upstream.features import Devices

#: torch's types of devices that have layers of bitsandbytes (0.50.2, ``supported_torch_devices``), with their names
_KINDS = {
    "cpu": "CPU",
    "cuda": "CUDA device",
    "xpu": "Intel GPU",
    "mps": "Apple GPU",
    "hpu": "Intel Gaudi",
    "npu": "Ascend NPU",
}
#: how people call AMD's GPUs; torch's builds for ROCm call them cuda
_AMD = ("rocm", "hip")


def usable(device: str) -> str:
    """Return a device on which k-bit layers can be trained here, as torch spells it.

    Args:
        device: A name such as ``cuda``, ``cuda:1``, ``xpu``, ``mps`` or ``cpu``.

    Raises:
        KbitlintError: The name is no device that trains k-bit layers, this machine has none of it, or the installed
            bitsandbytes does not know it.
    """
    kind, colon, index = device.partition(":")
    if kind in _AMD:
        raise KbitlintError(f"--device {device}: torch calls AMD's GPUs cuda, so pass --device cuda{colon}{index}")
    if kind not in _KINDS or (colon and not (index.isascii() and index.isdecimal())):
        names = ", ".join(name for name in _KINDS if name != "cuda")
        raise KbitlintError(f"--device {device!r}: names no device that trains k-bit layers: pass cuda, cuda:1, {names}")
    if kind == "cpu":
        return "cpu"
    module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    if module is None or not module.is_available():
        raise KbitlintError(
            f"--device {device}: torch {torch.__version__} finds no {_KINDS[kind]} here; --device cpu works everywhere"
        )
    count = 1 if kind == "mps" else module.device_count()
    if colon and int(index) >= count:
        raise KbitlintError(f"--device {device}: this machine has {count}, the last one is {kind}:{count - 1}")
    _must_be_known(device, kind)
    return device


def _must_be_known(device: str, kind: str) -> None:
    """Raise an error if the installed bitsandbytes has no layers for a kind of device."""
    bitsandbytes: Any = load_bitsandbytes("--fix")
    known = getattr(bitsandbytes, "supported_torch_devices", {"cuda"})  # versions before 0.46 had CUDA only
    if kind not in known:
        raise KbitlintError(
            f"--device {device}: bitsandbytes {bitsandbytes.__version__} has no layers for it, only for "
            f"{', '.join(sorted(known))}; upgrade it, or pass --device cpu"
        )


def devices() -> Devices:
    """Return the accelerators that torch sees: CUDA or ROCm, XPU, MPS."""
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = tuple(f"{card.name}, {size(card.total_memory)}" for card in cards)
        return Devices(names, cuda=True, bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return Devices(tuple(torch.xpu.get_device_name(index) for index in range(torch.xpu.device_count())))
    if torch.backends.mps.is_available():
        return Devices(("Apple GPU",))
    return Devices()
