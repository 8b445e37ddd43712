"""Layers in a plain list of a module, which its forward calls although quantization has replaced them.

Quantization replaces a registered child. A plain list beside the children still holds the layer that was there before:
``self.layers`` of MaskFormer's ``PredictionBlock`` (transformers 5.23) is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from kbitlint.facts.trace import ReplacedLayerFacts
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers.quantized import packing_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def replaced_layers(model: nn.Module) -> Iterator[tuple[ReplacedLayerFacts, nn.Module]]:
    """Yield the linear layers in plain lists that are no part of the model, if a quantized layer with their features is."""
    registered = set(map(id, model.modules()))
    for path, module in named_modules(model):
        for name, value in vars(module).items():
            if type(value) not in (list, tuple):
                continue
            for index, held in enumerate(value):
                layers = [held] if isinstance(held, nn.Linear) else []
                if isinstance(held, nn.Sequential):
                    layers = [layer for layer in held.modules() if isinstance(layer, nn.Linear)]
                for layer in layers:
                    if id(layer) not in registered and (beside := _quantized_beside(module, layer)) is not None:
                        place = f"{path}.{name}[{index}]" if path else f"{name}[{index}]"
                        yield ReplacedLayerFacts(place, path, beside, layer.weight.is_meta), layer


def _quantized_beside(module: nn.Module, layer: nn.Linear) -> str | None:
    """Return the name of a quantized layer in a module that has the features of another layer, or None."""
    for name, child in module.named_modules():
        packing = packing_of(child)
        if packing is not None and packing.features == (layer.in_features, layer.out_features):
            return name.removesuffix(".base_layer")
    return None
