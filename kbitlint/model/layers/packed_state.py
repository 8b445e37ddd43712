"""Packed bitsandbytes weights whose bytes contradict the state that was recorded when they were packed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.facts.layers import Packing, short_name
from kbitlint.model.attributes import attribute
from kbitlint.model.layers.values import is_finite

if TYPE_CHECKING:
    from collections.abc import Iterator


def conflict(module: nn.Module, packing: Packing) -> str:
    """Return the first difference between a packed weight and its recorded state; empty if they agree.

    The weight has data. Shards (DTensor) are not compared: each rank holds a part of the bytes.
    """
    if packing.method != "bitsandbytes" or packing.features is None:
        return ""
    weight: Any = module._parameters.get("weight")  # noqa: SLF001  # one dictionary read instead of a property chain
    if weight is None or type(weight).__name__ == "DTensor":
        return ""
    found = _four_bits(module, weight, packing.features) if packing.bits == 4 else _eight_bits(module, weight, packing.features)
    return next(found, "")


def repacks_in_eval_mode(module: nn.Module, packing: Packing) -> bool:
    """Return whether a layer repacks its weight when it runs in eval mode, on an input without a gradient.

    The weight has data. bitsandbytes 0.50 does so on CPUs with AVX512-BF16 (``Linear4bit.forward``), and never turns it back
    for training.
    """
    if packing.method != "bitsandbytes" or packing.bits != 4 or not attribute(module, "support_avx512bf16_for_cpu"):
        return False
    weight = module._parameters.get("weight")  # noqa: SLF001  # see conflict
    return weight is not None and weight.device.type == "cpu"


def is_repacked(module: nn.Module, packing: Packing) -> bool:
    """Return whether bitsandbytes has repacked the weight of a layer for its kernel for inference on CPUs.

    ``Linear4bit.forward`` of 0.50 does so for an input without gradient, in eval mode. In train mode such a layer uses the
    same kernel, through which no gradient flows.
    """
    if packing.method != "bitsandbytes" or packing.bits != 4:
        return False
    weight = module._parameters.get("weight")  # noqa: SLF001  # see conflict
    return bool(attribute(attribute(weight, "quant_state"), "packing_format_for_cpu"))


def shared_scales(module: nn.Module, packing: Packing, path: str, first: dict[int, str]) -> str:
    """Return how an 8-bit layer loses its scales to another layer of the same weight; empty if it does not.

    The first of them that runs takes the scales from the weight into its own state (``init_8bit_state``), and the others
    compute with integers. 4-bit weights keep theirs.

    Args:
        module: The layer.
        packing: How its weight is packed.
        path: The path of the layer.
        first: The first path of each parameter so far, by its id.
    """
    if packing.method != "bitsandbytes" or packing.bits != 8:
        return ""
    weight = first.get(id(module._parameters.get("weight")), "")  # noqa: SLF001  # see conflict
    owner = weight.rpartition(".")[0]
    if owner in ("", path) or attribute(attribute(module, "state"), "SCB") is not None:
        return ""
    return f"{owner} shares it, and takes its row maxima in the first forward pass"


def _four_bits(module: nn.Module, weight: Any, features: tuple[int, int]) -> Iterator[str]:
    state = attribute(weight, "quant_state")
    state = attribute(module, "quant_state") if state is None else state
    if attribute(state, "packing_format_for_cpu"):  # see is_repacked
        return
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # every read of a Params4bit's size would go through Python
        dtype, size, numel = weight.dtype, weight.element_size(), weight.numel()
    packed = attribute(weight, "quant_storage")
    if isinstance(packed, torch.dtype) and packed != dtype and packed.is_floating_point and dtype.is_floating_point:
        yield f"its bytes were packed as {short_name(packed)} and then cast to {short_name(dtype)} as if they were numbers"
    count = math.prod(features)
    if abs(numel * size - count / 2) > size:
        yield f"it holds {numel * size} bytes, and {features[1]} x {features[0]} values take {count // 2}"
    shape = attribute(state, "shape")
    if shape is not None and tuple(shape) not in (features, features[::-1]):
        yield f"its state records the shape {list(shape)}, and the layer has {[features[1], features[0]]}"
    blocks, size = attribute(state, "absmax"), attribute(state, "blocksize")
    if isinstance(blocks, Tensor) and isinstance(size, int) and blocks.numel() != -(-count // size):
        yield f"its state has {blocks.numel()} block maxima, and {-(-count // size)} blocks"
    double = attribute(attribute(state, "state2"), "absmax")
    for scales in (blocks, double, attribute(state, "offset")):
        yield from _unreadable(scales, "block maxima")
    held = isinstance(blocks, Tensor) and blocks.dtype is torch.uint8
    if attribute(state, "nested") and (not isinstance(double, Tensor) or not held):
        yield "its state records double quantization, and its block maxima are not quantized"


def _unreadable(scales: Any, what: str) -> Iterator[str]:
    """Yield that scales hold a value that is not finite: each number that they unpack to is NaN or infinite."""
    if isinstance(scales, Tensor) and scales.is_floating_point() and not scales.is_meta and not is_finite(scales):
        yield f"its {what} hold NaN or infinity"


def _eight_bits(module: nn.Module, weight: Any, features: tuple[int, int]) -> Iterator[str]:
    rows = attribute(weight, "SCB")
    rows = attribute(attribute(module, "state"), "SCB") if rows is None else rows
    if isinstance(rows, Tensor) and rows.numel() != features[1]:
        yield f"its state has {rows.numel()} row maxima, and the layer has {features[1]} rows"
    yield from _unreadable(rows, "row maxima")
    if weight.dim() == 2 and tuple(weight.shape) not in (features, features[::-1]):
        yield f"it has the shape {list(weight.shape)}, and the layer has {[features[1], features[0]]}"
