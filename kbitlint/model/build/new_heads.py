"""Heads that a checkpoint does not have: a load makes their weights anew, in plain parameters, which no quantizer packs.

``_move_missing_keys_from_meta_to_device`` of transformers 5 makes them (``modeling_utils.py``). The module may be one of packed
weights all the same, whose forward then raises.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.files.safetensors import HeaderError, read_header
from kbitlint.model.trace.quant_state import UNPACKED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: classes whose heads are trained for a task, so that checkpoints of a base model lack them
_OF_TASK = re.compile(r"(Classification|QuestionAnswering|MultipleChoice|Regression)$")


def unpack_new(model: Any, name: str, architectures: Sequence[str] | None, dtype: torch.dtype) -> None:
    """Give the packed modules of a model's new head the plain weights that a load gives them.

    Args:
        model: The model, on the meta device.
        name: The checkpoint. Of a folder, the headers of its files tell which heads it has.
        architectures: The classes that the checkpoint's config names; None if it names none.
        dtype: The dtype of weights that are not packed.
    """
    stored = _stored(name)
    if stored is None and (type(model).__name__ in (architectures or ()) or not _OF_TASK.search(type(model).__name__)):
        return
    for path, module in _heads(model):
        if stored is not None and any(key.startswith(f"{path}.") for key in stored):
            continue
        shape = module.weight.shape if type(module.weight).__name__ == "Int8Params" else getattr(module.weight, UNPACKED)[0]
        setattr(module, UNPACKED, True)  # and its copies
        module.weight = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))


def _stored(name: str) -> set[str] | None:
    """Return the names of the tensors of a folder; None if it is none, or its files have no headers that can be read."""
    names: set[str] = set()
    for file in Path(name).glob("*.safetensors") if Path(name).is_dir() else ():
        try:
            names |= read_header(file).keys()
        except HeaderError:
            return None
    return names or None


def _heads(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the packed modules outside the base model, whose weights are tied to none, with their paths."""
    base, tied = f"{model.base_model_prefix}.", getattr(model, "all_tied_weights_keys", None) or {}
    if model.base_model is model:
        return
    for path, module in model.named_modules():
        weight = module._parameters.get("weight")  # noqa: SLF001  # torch has no public dictionary
        packed = type(weight).__name__ == "Int8Params" or hasattr(weight, UNPACKED)
        if packed and not path.startswith(base) and f"{path}.weight" not in tied:
            yield path, module
