"""Files of weights without values: their names, shapes and dtypes are written and read, so that what is loaded has to fit."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.files.safetensors import HeaderError, read_header
from kbitlint.rehearsal.inside.imports import replace
from kbitlint.rehearsal.stand_ins import tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.rehearsal.inside.record import Record

#: bytes of a file beyond which weights without values are left out: it is sparse, but a copy of it need not be
_LARGEST = 2**30


def install(record: Record) -> None:
    """Replace what reads and writes tensors. Libraries import these functions by name, so this comes before their import."""
    import safetensors  # comes with transformers
    import safetensors.torch  # imports torch only

    replace(torch, "save", lambda original: _torch_save(record, original))
    replace(torch, "load", _torch_load)
    replace(safetensors.torch, "save_file", lambda original: _save_file(record, original))
    replace(safetensors.torch, "load_file", functools.partial(_here, 1))
    replace(safetensors, "safe_open", functools.partial(_here, 2))


def without_values(filename: Any) -> dict[str, torch.Tensor] | None:
    """Return the tensors that a safetensors file names, on meta; None if there is no such file that can be read."""
    from safetensors.torch import _TYPES  # the format's names of dtypes

    try:
        held = read_header(Path(filename))
    except HeaderError:
        return None
    return {name: torch.empty(one.shape, dtype=_TYPES[one.dtype], device="meta") for name, one in held.items()}


def _torch_save(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def save(obj: Any, f: Any, *arguments: Any, **options: Any) -> None:
        place = record.mirror.for_writing(str(f), keep=False) if isinstance(f, (str, bytes)) or hasattr(f, "__fspath__") else f
        original(obj, place, *arguments, **options)

    return save


def _torch_load(original: Any) -> Any:
    """Return ``torch.load``, which loads what a GPU has saved, or is to get, onto the CPU."""

    @functools.wraps(original)
    def load(f: Any, map_location: Any = None, *arguments: Any, **options: Any) -> Any:
        moved = map_location is None or isinstance(map_location, (str, torch.device, dict)) or type(map_location) is int
        return original(f, "cpu" if moved and str(map_location) != "meta" else map_location, *arguments, **options)

    return load


def _here(position: int, original: Any) -> Any:
    """Return a function that takes a device at a position, and loads onto the CPU instead of a GPU."""

    @functools.wraps(original)
    def function(*arguments: Any, **options: Any) -> Any:
        given = list(arguments)
        if len(given) > position and tensors.is_cuda(given[position]):
            given[position] = "cpu"
        if tensors.is_cuda(options.get("device")):
            options["device"] = "cpu"
        return original(*given, **options)

    return function


def _save_file(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def save_file(tensors: Any, filename: Any, metadata: Any = None, **options: Any) -> None:
        place = record.mirror.for_writing(str(filename), keep=False)
        if not any(tensor.is_meta for tensor in tensors.values()):
            original(tensors, place, metadata, **options)
        elif sum(tensor.nbytes for tensor in tensors.values()) > _LARGEST:
            original({name: tensor for name, tensor in tensors.items() if not tensor.is_meta}, place, metadata, **options)
        else:
            _write(tensors, place, metadata)

    return save_file


def _write(held: Mapping[str, torch.Tensor], place: str, metadata: Any) -> None:
    """Write a safetensors file in which tensors without values are holes, which take no room on the disk."""
    from safetensors.torch import _TYPES  # see above

    names = {dtype: name for name, dtype in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in held.items():
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(place, "wb") as file:  # noqa: PTH123  # a path of the mirror
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name, tensor in held.items():
            if not tensor.is_meta and tensor.nbytes:
                file.seek(start + header[name]["data_offsets"][0])
                file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        file.flush()
        os.truncate(file.fileno(), start + end)
