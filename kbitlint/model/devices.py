"""The accelerators of this machine."""

from __future__ import annotations

import torch

from kbitlint.sizes import size
from kbitlint.upstream.features import Devices


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
