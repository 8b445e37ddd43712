"""Packed bitsandbytes weights on the meta device, which have the shape and dtype of packed data and no values."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.model.trace.quant_state import UNPACKED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def pack(model: nn.Module) -> None:
    """Give bitsandbytes layers on meta packed weights. The quantizer leaves them the shape and dtype of the float weight.

    A layer that is marked as unpacked itself keeps its weight: ``new_heads.py``.
    """
    if "bitsandbytes" not in sys.modules:
        return
    import bitsandbytes  # an optional dependency

    for module in model.modules():
        weight: Any = module._parameters.get("weight")  # noqa: SLF001  # torch has no public dictionary
        if weight is None or not weight.is_meta or hasattr(module, UNPACKED):
            continue
        if isinstance(module, bitsandbytes.nn.Linear4bit) and isinstance(weight, bitsandbytes.nn.Params4bit):
            _pack_4bit(module, weight)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt) and not module.state.has_fp16_weights:
            packed = torch.empty(weight.shape, dtype=torch.int8, device="meta")
            module.weight = bitsandbytes.nn.Int8Params(packed, requires_grad=False, has_fp16_weights=False)


def _pack_4bit(module: Any, weight: Any) -> None:
    if hasattr(weight, UNPACKED):
        return
    storage = module.quant_storage
    count = ((module.in_features * module.out_features + 1) // 2 + storage.itemsize - 1) // storage.itemsize
    setattr(weight, UNPACKED, ((module.out_features, module.in_features), weight.dtype))
    weight.data = torch.empty((count, 1), dtype=storage, device="meta")
    weight.bnb_quantized = True


def _copy_in_twin(weight: Any) -> Any:
    """Return a copy of a packed weight of a twin, which has its format but not all that bitsandbytes copies."""
    copied: Any = torch.nn.Parameter(torch.empty_like(weight.data), requires_grad=weight.requires_grad)
    copied.__class__ = type(weight)
    copied.__dict__.update(weight.__dict__)
    return copied


@contextmanager
def unpackable() -> Iterator[None]:
    """Let PEFT and transformers copy and unpack packed weights on meta inside the ``with`` statement.

    PEFT does for DoRA and OLoRA, and transformers in ``model.dequantize()``.

    bitsandbytes unpacks with a ``quant_state`` or ``SCB``, which are values. Without them, only shape and dtype follow.
    """
    if importlib.util.find_spec("peft") is None or importlib.util.find_spec("bitsandbytes") is None:
        yield
        return
    from bitsandbytes.nn import Params4bit  # an optional dependency
    from peft.utils import integrations  # an optional dependency

    copy, dequantize = Params4bit.__deepcopy__, integrations.dequantize_bnb_weight

    def copy_on_meta(weight: Any, memo: dict[int, Any]) -> Any:
        with torch.device("meta") if weight.is_meta else nullcontext():
            copied = copy(weight, memo) if "module" in weight.__dict__ else _copy_in_twin(weight)
        if hasattr(weight, UNPACKED):
            setattr(copied, UNPACKED, getattr(weight, UNPACKED))
        return copied

    def dequantize_on_meta(weight: Any, *arguments: Any, **options: Any) -> Any:
        # an 8-bit weight has its own shape, and bitsandbytes unpacks it to float32
        known = (weight.shape, torch.float32) if type(weight).__name__ == "Int8Params" else getattr(weight, UNPACKED, None)
        if known is None or not weight.is_meta:
            return dequantize(weight, *arguments, **options)
        return torch.empty(known[0], dtype=known[1], device="meta")

    Params4bit.__deepcopy__, integrations.dequantize_bnb_weight = copy_on_meta, dequantize_on_meta
    try:
        yield
    finally:
        Params4bit.__deepcopy__, integrations.dequantize_bnb_weight = copy, dequantize
