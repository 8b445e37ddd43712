"""The input of a module that documents nothing: what its first layer takes."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model.inputs.interface import signature_of
from kbitlint.model.layers import adapters
from kbitlint.model.layers.quantized import packing_of

if TYPE_CHECKING:
    from kbitlint.model.inputs.dimensions import Dimensions
    from kbitlint.model.inputs.interface import Argument
    from kbitlint.model.inputs.plan import Plan

#: Edges of an image, and steps of a signal, for a convolution that accepts any.
_EDGE, _STEPS = 32, 256
_MEDIA = re.compile(r"pixel|image|video|audio|^input_(values|features)$")


def input_of(base: nn.Module, argument: Argument, dimensions: Dimensions, dtype: torch.dtype, plan: Plan) -> Tensor | None:
    """Return an input for an argument without documentation, or None if no layer tells its shape.

    Args:
        base: The module.
        argument: The argument.
        dimensions: The dimensions of the batch.
        dtype: The dtype of floating-point inputs.
        plan: The changes of the batch.
    """
    planned, kind = plan.shapes.get(argument.name), plan.kinds.get(argument.name)
    integers = planned or (dimensions.batch, dimensions.seq_len)
    for module in base.modules() if kind != "long" else ():
        if isinstance(module, nn.Embedding) and kind is None:
            return torch.arange(integers[-1]).remainder(module.num_embeddings).expand(integers).clone()
        found = _shape(module, dimensions) if argument.kind == "float" or kind == "float" else None
        if found is not None:
            return torch.randn(planned or found, dtype=dtype)
    return torch.zeros(integers, dtype=torch.long) if "long" in (kind, argument.kind) else None


def _shape(module: nn.Module, dimensions: Dimensions) -> tuple[int, ...] | None:
    """Return the shape that a layer takes, or None if it takes any, or is no layer."""
    batch, steps = dimensions.batch, dimensions.seq_len
    if isinstance(module, nn.Conv1d):
        return (batch, module.in_channels, _STEPS)
    if isinstance(module, nn.Conv2d):
        return (batch, module.in_channels, _EDGE, _EDGE)
    if isinstance(module, nn.Conv3d):
        return (batch, module.in_channels, 2, _EDGE, _EDGE)
    if isinstance(module, nn.RNNBase):
        return (batch, steps, module.input_size)
    packing = packing_of(module)
    if packing is not None and packing.features is not None:
        return (batch, steps, packing.features[0])
    return (batch, steps, module.in_features) if isinstance(module, nn.Linear) else None


def described(model: nn.Module) -> nn.Module:
    """Return the module whose forward describes the batch: the model inside PEFT and value heads, or a wrapper of its own kind.

    A wrapper passes on what its inner model takes if it accepts that model's main input, and needs nothing else. Otherwise its
    own signature counts, as it does for a wrapper that takes images or sounds and its inner model does not.
    """
    base, outer = adapters.base_of(model), _called(model)
    if outer is base:
        return base
    parameters = inspect.signature(outer.forward).parameters
    known = signature_of(base).parameters
    if any(name not in known for name, one in parameters.items() if _is_required(one) or _MEDIA.search(name)):
        return outer
    passes = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return base if passes or getattr(base, "main_input_name", "") in parameters else outer


def _is_required(parameter: inspect.Parameter) -> bool:
    several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not several


def accepted(model: nn.Module) -> frozenset[str] | None:
    """Return the names that the forward of a model below PEFT takes, or None if it takes any."""
    parameters = inspect.signature(_called(model).forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _called(model: nn.Module) -> nn.Module:
    """Return the module whose forward a training step runs, below PEFT."""
    outer = adapters.seen_through(model)
    return adapters.own_base(outer) if hasattr(type(outer), "get_base_model") else outer


def config_of(base: Any) -> Any:
    """Return the config of a model, or that of the model inside a wrapper such as a value head. None if none has a config."""
    own = getattr(base, "config", None)
    if own is not None:
        return own
    inside = (getattr(module, "config", None) for module in base.modules() if hasattr(module, "main_input_name"))
    return next((config for config in inside if config is not None), None)
