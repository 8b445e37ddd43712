"""Values of the scales and vectors in a checkpoint: NaN, infinity, and scales that are all zero. The first of each are read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.checkpoint import FLOATS
from kbitlint.files.safetensors import all_zero, is_nonfinite, starts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kbitlint.facts.checkpoint import PackedTensors, PackedWeight, Tensor

#: bytes that are read of each tensor: a bad load or an overflow leaves more than one bad value
_SAMPLE = 256
#: what bitsandbytes stores beside a weight, and what an unpacked number is a product with
_SCALES = ("weight.absmax", "weight.nested_absmax", "SCB")
#: the largest scales that are read as a whole, where they begin with zeros
_LARGEST = 16 * 1024 * 1024


def with_values(folder: Path, tensors: Mapping[str, Tensor], packing: PackedTensors) -> tuple[PackedTensors, tuple[str, ...]]:
    """Return the packed weights with what their scales hold, and the vectors that hold NaN or infinity.

    Args:
        folder: The folder of the checkpoint.
        tensors: Its tensors, by name.
        packing: What is packed among them.
    """
    scales = {f"{item.module}.{part}" for item in packing.packed for part in _SCALES}
    wanted = {name: one for name, one in tensors.items() if one.dtype in FLOATS and (len(one.shape) == 1 or name in scales)}
    bad, begun = set(), set()
    for name, content in _read(folder, wanted):
        if is_nonfinite(wanted[name].dtype, content):
            bad.add(name)
        elif name in scales and content and content.count(0) == len(content):
            begun.add(name)
    zero = {name for name in begun if all_zero(folder / wanted[name].file, wanted[name], _LARGEST)}
    packed = tuple(_seen(item, tensors, bad, zero) for item in packing.packed)
    return dataclasses.replace(packing, packed=packed), tuple(name for name in wanted if name in bad - scales)


def _read(folder: Path, wanted: Mapping[str, Tensor]) -> Iterator[tuple[str, bytes]]:
    by_file: dict[str, dict[str, Tensor]] = {}
    for name, tensor in wanted.items():
        by_file.setdefault(tensor.file, {})[name] = tensor
    for file in sorted(by_file):
        yield from starts(folder / file, by_file[file], _SAMPLE)


def _seen(item: PackedWeight, tensors: Mapping[str, Tensor], bad: set[str], zero: set[str]) -> PackedWeight:
    """Return a packed weight with a conflict if its scales hold NaN, or as blank if each of them is zero.

    Double quantization adds an offset to its maxima, which is stored in JSON, so that zeros among them prove nothing.
    """
    names = [f"{item.module}.{part}" for part in _SCALES]
    if bad.intersection(names):
        return dataclasses.replace(item, conflict=item.conflict or "its scales hold NaN or infinity")
    nested = names[1] in tensors
    return dataclasses.replace(item, blank=not nested and not zero.isdisjoint(names))
