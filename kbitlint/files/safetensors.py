"""Headers of safetensors files, read with limits because the files are untrusted.

The format: 8 bytes of little-endian length, a JSON object of that length, then the tensors' bytes without gaps.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from kbitlint.facts.checkpoint import BITS, Tensor
from kbitlint.runtime.content import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: a shard of the largest public checkpoints has a header of 2 MB
MAX_HEADER = 16 * 1024 * 1024
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 32


class HeaderError(ValueError):
    """A header that is damaged or malicious."""


def read_header(path: Path, name: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file by name. The header takes at most MAX_HEADER bytes of memory.

    Raises:
        HeaderError: If the file cannot be read or its header is not valid.
    """
    try:
        with opened(path) as file:
            return parse(file, os.fstat(file.fileno()).st_size, name or path.name)
    except OSError as error:
        raise HeaderError(f"cannot be read: {error.strerror or error}") from error


def parse(file: BinaryIO, size: int, name: str = "") -> dict[str, Tensor]:
    """Return the tensors of an open file of a known size, as ``read_header`` does."""
    prefix = file.read(8)
    if len(prefix) < 8:  # the format's length field
        raise HeaderError("is too short for a header")
    length = int.from_bytes(prefix, "little")
    if length > size - 8:
        raise HeaderError(f"the header is said to be {length} bytes long, and the file has {max(size - 8, 0)} more")
    if length > MAX_HEADER:
        raise HeaderError(f"the header is said to be {length} bytes long; more than {MAX_HEADER} are not read")
    content = file.read(length)
    if len(content) < length:
        raise HeaderError("the header ends before its length")
    return _tensors(_object(content), 8 + length, size, name)


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"the header is not usable JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise HeaderError("the header is no JSON object")
    value.pop("__metadata__", None)
    if len(value) > MAX_TENSORS:
        raise HeaderError(f"the header names {len(value)} tensors; more than {MAX_TENSORS} are not read")
    return value


def _tensors(entries: Mapping[str, Any], base: int, size: int, name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    room = size - base
    for key, entry in entries.items():
        found[key] = _tensor(key, entry, base, room, name)
    reached = base
    for key, tensor in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start < reached:
            raise HeaderError(f"{_short(key)} overlaps another tensor")
        if tensor.start > reached:
            raise HeaderError(f"{tensor.start - reached} bytes before {_short(key)} belong to no tensor")
        reached = tensor.end
    if reached != size and found:
        raise HeaderError(f"{size - reached} bytes at the end belong to no tensor")
    return found


def _tensor(key: str, entry: Any, base: int, room: int, name: str) -> Tensor:
    if not isinstance(entry, dict):
        raise HeaderError(f"{_short(key)} is described by no object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None or not isinstance(dtype, str):
        raise HeaderError(f"{_short(key)} has no known dtype")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise HeaderError(f"{_short(key)} has no usable shape")
    if not isinstance(offsets, list) or len(offsets) != 2:  # start and end
        raise HeaderError(f"{_short(key)} has no usable offsets")
    start, end = offsets
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= room:
        raise HeaderError(f"{_short(key)} lies outside of the file")
    elements = 1
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:
            raise HeaderError(f"{_short(key)} has no usable shape")
        elements *= dimension
        if elements * bits > 8 * room + 7:
            break  # no overflow in Python, but the product need not grow further
    if elements * bits != 8 * (end - start):
        raise HeaderError(f"{_short(key)} takes {end - start} bytes, and its shape another number")
    return Tensor(dtype, tuple(shape), base + start, base + end, name)


def _short(key: str) -> str:
    return ascii(key if len(key) <= 80 else key[:77] + "...")  # short enough for one line of a terminal


def all_zero(path: Path, tensor: Tensor, most: int) -> bool | None:
    """Return whether every byte of a tensor is zero. None if it has more than ``most`` bytes or cannot be read."""
    if tensor.nbytes > most:
        return None
    try:
        with opened(path) as file:
            file.seek(tensor.start)
            left = tensor.nbytes
            while left:
                chunk = file.read(min(left, 1 << 16))
                if not chunk:
                    return None
                if chunk.count(0) != len(chunk):
                    return False
                left -= len(chunk)
    except OSError:
        return None
    return True


#: bytes at the start of a tensor that are searched for NaN: one NaN in a gradient spreads over the whole tensor
_SAMPLE = 4096
#: (format of one word, bits of the exponent) by dtype; all of them set means NaN or infinity
_EXPONENTS = {"BF16": ("H", 0x7F80), "F16": ("H", 0x7C00), "F32": ("I", 0x7F800000)}


def nonfinite(path: Path, tensor: Tensor) -> bool:
    """Return whether the first values of a tensor contain NaN or infinity. False if they cannot be read."""
    return any(is_nonfinite(tensor.dtype, start) for _, start in starts(path, {"": tensor}, _SAMPLE))


def starts(path: Path, tensors: Mapping[str, Tensor], most: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, its first bytes, at most ``most``) of tensors of one file. Nothing follows once it cannot be read."""
    try:
        with opened(path) as file:
            for name, tensor in tensors.items():
                file.seek(tensor.start)
                yield name, file.read(min(tensor.nbytes, most))
    except OSError:
        return


def is_nonfinite(dtype: str, content: bytes) -> bool:
    """Return whether values of a dtype contain NaN or infinity. False for a dtype whose exponent is not known here."""
    if dtype not in _EXPONENTS:
        return False
    code, exponent = _EXPONENTS[dtype]
    words = memoryview(content)[: len(content) // struct.calcsize(code) * struct.calcsize(code)]
    return any(word & exponent == exponent for (word,) in struct.iter_unpack(f"<{code}", words))
