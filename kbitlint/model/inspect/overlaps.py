"""Parameters on the same memory: an optimizer that writes one of them changes the other one too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor


def overlapping(parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield (trainable parameter, other parameter) that share memory, once for each trainable one.

    Tied modules hold one parameter and not two, which is no overlap. Elements of an expanded parameter overlap each other.

    Args:
        parameters: Each parameter of a model once, by its path.
    """
    spans: dict[int, list[tuple[int, int, str, bool]]] = {}
    for path, parameter in parameters.items():
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # every read of a Params4bit's size would go through Python
            span = _span(parameter)
        if span is None:
            continue
        if parameter.requires_grad and 0 in _strides(parameter):
            yield path, path
        spans.setdefault(span[0], []).append((span[1], span[2], path, parameter.requires_grad))
    for held in spans.values():
        yield from _crossings(sorted(held)) if len(held) > 1 else ()


def _crossings(held: list[tuple[int, int, str, bool]]) -> Iterator[tuple[str, str]]:
    end, last = held[0][1], held[0]
    for one in held[1:]:
        if one[0] < end and (one[3] or last[3]):
            yield (one[2], last[2]) if one[3] else (last[2], one[2])
        if one[1] > end:
            end, last = one[1], one


def _span(parameter: Any) -> tuple[int, int, int] | None:
    """Return the storage of a parameter, and its first and last byte there. None if it has no memory of its own kind."""
    if parameter.is_meta or type(parameter).__name__ == "DTensor" or not parameter.numel():
        return None
    try:
        storage = parameter.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # subclasses without a storage, such as those of torchao
        return None
    size, start = parameter.element_size(), parameter.storage_offset()
    length = 1 + sum((count - 1) * step for count, step in zip(parameter.shape, parameter.stride(), strict=True))
    return (storage, start * size, (start + length) * size) if storage else None


def _strides(parameter: Tensor) -> list[int]:
    return [step for count, step in zip(parameter.shape, parameter.stride(), strict=True) if count > 1]
