"""LoRA adapters whose gradient is zero for every input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.model.layers.values import has_value

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Factors of LoRA on layers and on embeddings. Their product is added to the layer.
_FACTORS = (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"))


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
