"""Recognises packed weights by the names, dtypes and shapes of tensors; nothing of a tensor is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.facts.checkpoint import PackedTensors, PackedWeight
from kbitlint.upstream.quantization import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kbitlint.facts.checkpoint import Tensor

#: what bitsandbytes stores beside a 4-bit weight (bitsandbytes/functional.py, QuantState.as_dict)
_STATE = re.compile(
    r"(?P<weight>.+\.weight)\.(?P<part>absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(nf4|fp4))"
)
#: values in a block of bitsandbytes 0.50 (bitsandbytes/functional.py, quantize_4bit)
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_NEEDED = ("absmax", "quant_map", "quant_state")
#: tensors that tell of a method by their name alone
_MARKS = {method.name: re.compile(method.tensors) for method in METHODS if method.tensors}


def packing_of(tensors: Mapping[str, Tensor]) -> PackedTensors:
    """Return which of these tensors are packed."""
    states: dict[str, set[str]] = {}
    for name in tensors:
        match = _STATE.fullmatch(name) if ".weight." in name else None
        if match is not None:
            states.setdefault(match["weight"], set()).add(match["part"].partition(".")[0])
    packed = [_four_bit(weight, parts, tensors) for weight, parts in states.items() if weight in tensors]
    orphaned = [weight.removesuffix(".weight") for weight in states if weight not in tensors]
    floating: list[str] = []
    for name, tensor in tensors.items():
        module = name.rpartition(".")[0]
        if name.endswith(".weight") and name not in states and len(tensor.shape) == 2:  # a matrix
            if tensor.dtype == "I8":
                rows = tensors.get(f"{module}.SCB")
                packed.append(PackedWeight(module, 8, () if rows else ("SCB",), _rows_conflict(tensor, rows)))
            elif tensor.dtype == "U8" and tensor.shape[1] == 1:
                packed.append(PackedWeight(module, 4, _NEEDED))
            elif tensor.dtype in ("F16", "BF16", "F32"):
                floating.append(module)
        elif name.endswith(".SCB") and f"{module}.weight" not in tensors:
            orphaned.append(module)
    return PackedTensors(tuple(packed), tuple(orphaned), tuple(floating), "bitsandbytes" if packed else _method(tensors))


def _rows_conflict(weight: Tensor, rows: Tensor | None) -> str:
    if rows is None or rows.numel in weight.shape:
        return ""
    return f"{rows.numel} row maxima are stored, and the weight has {weight.shape[0]} rows"


def _blocks_conflict(weight: Tensor, blocks: Tensor) -> str:
    """Return how a packed weight contradicts its block maxima. A block has a power of two of values (``quantize_4bit``)."""
    values = 2 * weight.nbytes
    if any(-(-values // size) == blocks.numel for size in _BLOCKS):
        return ""
    return f"{blocks.numel} block maxima are stored, and no size of blocks gives as many for {values} values"


def _four_bit(weight: str, parts: set[str], tensors: Mapping[str, Tensor]) -> PackedWeight:
    nested = bool(parts & {"nested_absmax", "nested_quant_map"})
    needed = (*_NEEDED, *(("nested_absmax", "nested_quant_map") if nested else ()))
    lacking = tuple(part for part in needed if part not in parts)
    conflict = "" if lacking else _blocks_conflict(tensors[weight], tensors[f"{weight}.absmax"])
    return PackedWeight(weight.removesuffix(".weight"), 4, lacking, conflict)


def _method(names: Iterable[str]) -> str | None:
    for name in names:
        for method, mark in _MARKS.items():
            if mark.search(name):
                return method
    return None
