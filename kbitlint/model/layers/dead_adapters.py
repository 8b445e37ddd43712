"""LoRA adapters whose gradient is zero for every input, and parameters that hold NaN: facts that take a look at values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model.attributes import is_inference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.model import ParameterFacts

#: Factors of LoRA on layers and on embeddings. Their product is added to the layer.
_FACTORS = (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"))
#: Elements that are read at once.
_PIECE = 2**22


def dead_adapters(layer: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield (adapter, reason) of each LoRA adapter of a layer that trains and cannot learn.

    The gradient of each factor is a product with the other factor and with the scaling. A factor of zeros alone is the normal
    start: the other one gets a gradient. Nothing is read of weights on the meta device.
    """
    own = layer._modules  # noqa: SLF001  # dictionary reads; attribute access on a module raises and catches errors inside
    scaling, dropouts = layer.__dict__.get("scaling") or {}, own.get("lora_dropout") or {}
    for first, second in _FACTORS:
        ones, others = own.get(first), own.get(second)
        for name in ones.keys() & others.keys() if ones is not None and others is not None else ():  # type: ignore[operator]
            one, other = _weight(ones[name]), _weight(others[name])  # type: ignore[index]
            if one is None or other is None or not (one.requires_grad or other.requires_grad):
                continue
            if scaling.get(name) == 0:
                yield name, "its scaling is 0 (lora_alpha)"
            elif not math.isfinite(scaling.get(name, 1)):
                yield name, f"its scaling is {scaling[name]}, and so is each gradient"
            elif name in dropouts and getattr(dropouts[name], "p", 0) == 1:
                yield name, "its dropout is 1, which drops every input"
            elif not has_value(one) and not has_value(other):
                yield name, "both of its factors are zero"
            elif any(not fixed.requires_grad and not has_value(fixed) for fixed in (one, other)):
                yield name, "one of its factors is frozen at zero"


def _weight(factor: Any) -> Any:
    """Return the weight of a factor: a Linear's, a Conv's, or the parameter itself for embeddings. None if it has no data."""
    found = factor if isinstance(factor, Tensor) else factor._parameters.get("weight")  # noqa: SLF001  # see dead_adapters
    readable = found is not None and found.is_floating_point() and found.numel() and not found.is_meta
    return found if readable and type(found).__name__ != "DTensor" else None


def has_value(weight: Tensor) -> bool:
    """Return whether a tensor has a value other than zero. Its first or last value decides, as a rule."""
    with torch.no_grad():
        weight = weight.clone() if is_inference(weight) else weight  # it has no version that a view could share
        ends = (bool(weight[(at,) * weight.dim()] != 0) for at in (0, -1))  # the first row of embeddings may be padding
        return any(ends) or bool(weight.any())


def nonfinite(parameter: Tensor, facts: ParameterFacts) -> Iterator[str]:
    """Yield the path of a parameter of an adapter, or of a vector, that holds NaN or infinity. Others are not read."""
    small = facts.adapter or (len(facts.shape) < 2 and not facts.packed)
    if small and facts.floating and facts.numel and not parameter.is_meta and not is_finite(parameter.detach()):
        yield facts.path


def is_finite(tensor: Tensor) -> bool:
    """Return whether every value is finite. A large tensor is read in pieces: ``isfinite`` allocates more than it is given."""
    if tensor.numel() <= _PIECE or not tensor.is_contiguous() or type(tensor).__name__ == "DTensor":
        return bool(tensor.isfinite().all())
    return all(bool(piece.isfinite().all()) for piece in tensor.flatten().split(_PIECE))
