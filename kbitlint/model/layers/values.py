"""The values of tensors: whether one is other than zero, and whether each is finite. Nothing is read on the meta device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model.attributes import attribute, is_inference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.layers import Packing
    from kbitlint.facts.model import ParameterFacts

#: Elements that are read at once.
_PIECE = 2**22
#: Rows of a large matrix that are read, evenly spread.
_ROWS = 64
#: Layers that multiply with each number of their weight, whatever they are given.
_MULTIPLYING = (nn.Linear, nn.modules.conv._ConvNd)  # noqa: SLF001  # torch has no public name for the base of its convolutions


def has_value(weight: Tensor) -> bool:
    """Return whether a tensor has a value other than zero. Its first or last value decides, as a rule."""
    with torch.no_grad():
        weight = weight.clone() if is_inference(weight) else weight  # it has no version that a view could share
        ends = (bool(weight[(at,) * weight.dim()] != 0) for at in (0, -1))  # the first row of embeddings may be padding
        return any(ends) or bool(weight.any())


def is_finite(tensor: Tensor) -> bool:
    """Return whether every value is finite. A large tensor is read in pieces: ``isfinite`` allocates more than it is given."""
    if tensor.numel() <= _PIECE or not tensor.is_contiguous() or type(tensor).__name__ == "DTensor":
        return bool(tensor.isfinite().all())
    return all(bool(piece.isfinite().all()) for piece in tensor.flatten().split(_PIECE))


def nonfinite(module: nn.Module, parameter: Tensor, facts: ParameterFacts) -> Iterator[str]:
    """Yield the path of a parameter that makes each loss NaN, since it holds NaN or infinity.

    A parameter of an adapter and a vector are read as a whole, and of other matrices some rows. A batch looks up a few rows of
    an embedding, so more than half of those read must be bad.

    Args:
        module: The module that holds the parameter.
        parameter: The parameter.
        facts: Its facts.
    """
    if not facts.floating or facts.packed or not facts.numel or parameter.is_meta:
        return
    values = parameter.detach()
    if facts.adapter or len(facts.shape) < 2:
        bad = not is_finite(values)
    elif type(values) is not Tensor:
        bad = False
    elif isinstance(module, nn.Embedding):
        bad = float(_rows(values).isfinite().all(dim=-1).float().mean()) < 0.5
    else:
        bad = isinstance(module, _MULTIPLYING) and not is_finite(_rows(values))
    if bad:
        yield facts.path


def _rows(matrix: Tensor) -> Tensor:
    return matrix if matrix.numel() <= _PIECE // _ROWS else matrix[:: max(len(matrix) // _ROWS, 1)]


def undefined(module: nn.Module, path: str) -> Iterator[str]:
    """Yield the path of each buffer of a module that is a vector with NaN, as frequencies that were never computed.

    Infinity is a value of masks and of ranges. Larger buffers may be memory that the forward writes first.
    """
    for name, buffer in module._buffers.items():  # noqa: SLF001  # buffers of the module alone
        read = type(buffer) is Tensor and buffer.dim() == 1 and buffer.is_floating_point() and not buffer.is_meta
        if read and bool(buffer.isnan().any()):  # type: ignore[union-attr]  # a tensor, as the line above found
            yield f"{path}.{name}" if path else name


def is_blank(module: nn.Module, packing: Packing) -> bool:
    """Return whether the weight of a layer unpacks to zeros only. It has data.

    Each scale of bitsandbytes is zero then, and each integer of torchao, if no zero point moves them.
    """
    weight: Any = module._parameters.get("weight")  # noqa: SLF001  # a dictionary read; the attribute may be a property
    if packing.method == "torchao":
        numbers, zero = attribute(weight, "qdata"), attribute(weight, "zero_point")
        return _holds_zeros(numbers) and (zero is None or _holds_zeros(zero))
    if packing.method != "bitsandbytes":
        return False
    if packing.bits == 8:
        rows = attribute(weight, "SCB")
        return _is_zero(attribute(attribute(module, "state"), "SCB") if rows is None else rows)
    state = attribute(weight, "quant_state")
    state = attribute(module, "quant_state") if state is None else state
    if not attribute(state, "nested"):
        return _is_zero(attribute(state, "absmax"))
    return _is_zero(attribute(attribute(state, "state2"), "absmax")) and _is_zero(attribute(state, "offset"))


def _holds_zeros(numbers: Any) -> bool:
    integers = isinstance(numbers, Tensor) and not numbers.is_floating_point() and numbers.numel() and not numbers.is_meta
    return bool(integers) and not has_value(numbers)


def _is_zero(scales: Any) -> bool:
    readable = isinstance(scales, Tensor) and scales.is_floating_point() and scales.numel() and not scales.is_meta
    return bool(readable) and type(scales).__name__ != "DTensor" and not has_value(scales)
