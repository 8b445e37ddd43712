"""A tensor for one documented argument."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbitlint.model.inputs.tokens import tokens_of

if TYPE_CHECKING:
    from kbitlint.model.inputs.dimensions import Dimensions
    from kbitlint.model.inputs.interface import Argument
    from kbitlint.model.inputs.plan import Plan


def made_for(argument: Argument, dimensions: Dimensions, dtype: torch.dtype, plan: Plan) -> Any:
    """Return a value for an argument, or None if its documentation tells too little.

    Masks are all ones, types of tokens are zeros, and positions count up.

    Args:
        argument: The argument.
        dimensions: The dimensions of the batch.
        dtype: The dtype of floating-point inputs.
        plan: The changes of the batch.
    """
    kind = plan.kinds.get(argument.name, argument.kind)
    if kind == "flag":
        return True
    shape = plan.shapes.get(argument.name) or shape_of(argument, dimensions)
    if shape is None and kind == "float list":  # series of numbers, such as those of a forecast
        shape = (dimensions.batch, dimensions.of("context_length"))
    if shape is None or kind in ("other", "targets", "features"):
        return None
    if kind.endswith(" list"):
        return [_filled(argument.name, kind.split()[0], shape[1:] or (1,), dimensions, dtype) for _ in range(shape[0])]
    return _filled(argument.name, kind, shape, dimensions, dtype)


def shape_of(argument: Argument, dimensions: Dimensions) -> tuple[int, ...] | None:
    """Return the documented shape of an argument in numbers, or the usual one for its name. None if neither is known."""
    if argument.shape is not None:
        return tuple(dimensions.of(symbol, argument.name) for symbol in argument.shape)
    if argument.name.endswith(("_ids", "_mask")):
        return (dimensions.batch, dimensions.seq_len)
    if argument.name.startswith("pixel_values"):
        frames = (dimensions.of("num_frames"),) if argument.name.endswith("videos") else ()
        return (dimensions.batch, *frames, dimensions.of("num_channels", "pixel_values"), *dimensions.image())
    return None


def _filled(name: str, kind: str, shape: tuple[int, ...], dimensions: Dimensions, dtype: torch.dtype) -> Tensor:
    if kind == "bool":
        return _some(shape) if "mask" in name and ("pos" in name or "time" in name) else torch.ones(shape, dtype=torch.bool)
    if kind == "float":
        return torch.ones(shape, dtype=dtype) if name.endswith("mask") else torch.randn(shape, dtype=dtype)
    if (number := _number(name, dimensions)) is not None:
        return torch.full(shape, number, dtype=torch.long)
    if name.endswith("image_sizes") and shape[-1] == 2:
        return torch.tensor(dimensions.image()).expand(shape).clone()
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).expand(shape).clone()
    if name.endswith("_ids") and "type" not in name and len(shape) > 1:
        part = getattr(dimensions.config, f"{name.removesuffix('_input_ids')}_config", None) or dimensions.config
        text = part.get_text_config() if hasattr(part, "get_text_config") else part
        return tokens_of(part, text, shape)
    return torch.zeros(shape, dtype=torch.long)


def _number(name: str, dimensions: Dimensions) -> int | None:
    """Return the number that each element of an argument has, or None if they differ or are zero."""
    if name.endswith("mask") or name == "merge_sizes":  # edges of the squares of patches that become one
        return 1
    if name.endswith("lengths"):
        return dimensions.seq_len
    return math.isqrt(dimensions.patches()) if name == "spatial_shapes" else None  # rows and columns of patches


def _some(shape: tuple[int, ...]) -> Tensor:
    """Return a mask of which every second element of a row is true. All rows have equally many."""
    return (torch.arange(shape[-1]) % 2 == 0).expand(shape).clone()
