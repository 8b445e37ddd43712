"""LoRA adapters whose gradient is zero for every input, and parameters that hold NaN: facts that take a look at values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.model.attributes import attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.model import ParameterFacts

#: Factors of LoRA on layers and on embeddings. Their product is added to the layer.
_FACTORS = (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"))


def dead_adapters(layer: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield (adapter, reason) of each LoRA adapter of a layer that trains and cannot learn.

    The gradient of each factor is a product with the other factor and with the scaling. A factor of zeros alone is the normal
    start: the other one gets a gradient. Nothing is read of weights on the meta device.
    """
    scaling, dropouts = attribute(layer, "scaling") or {}, attribute(layer, "lora_dropout") or {}
    for first, second in _FACTORS:
        ones, others = attribute(layer, first) or {}, attribute(layer, second) or {}
        for name in ones:
            pair = [_weight(ones, name), _weight(others, name)]
            if None in pair or not any(weight.requires_grad for weight in pair) or any(weight.is_meta for weight in pair):
                continue
            if name in scaling and scaling[name] == 0:
                yield name, "its scaling is 0 (lora_alpha)"
            elif name in dropouts and attribute(dropouts[name], "p") == 1:
                yield name, "its dropout is 1, which drops every input"
            elif not any(bool(weight.any()) for weight in pair):
                yield name, "both of its factors are zero"


def _weight(holder: Any, name: str) -> Any:
    """Return the weight of a factor: a Linear's, a Conv's, or the parameter itself for embeddings. None if it has none."""
    try:
        found = holder[name]
    except (KeyError, TypeError):
        return None
    found = found if isinstance(found, Tensor) else attribute(found, "weight")
    return found if isinstance(found, Tensor) and found.is_floating_point() and type(found).__name__ != "DTensor" else None


def nonfinite(parameter: Tensor, facts: ParameterFacts) -> Iterator[str]:
    """Yield the path of a parameter of an adapter, or of a vector, that holds NaN or infinity. Larger ones are not read."""
    small = facts.adapter or (len(facts.shape) < 2 and not facts.packed)
    if small and facts.floating and facts.numel and not parameter.is_meta and not bool(parameter.detach().isfinite().all()):
        yield facts.path
