"""What a small copy takes over from the modules of a model: packed weights, torch's checkpoints, hooks, kinds of buffers."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from kbitlint.model.layers.adapters import below_wrappers
from kbitlint.model.layers.quantized import packing_of

_CHECKPOINTED = "_checkpoint_wrapped_module"


def carry(base: nn.Module, made: nn.Module) -> None:
    """Give a small copy what its class alone would not have, from the modules of the model.

    A module of the copy takes over from the module of the same path, the first layers from the first layers.

    Args:
        base: The base model. Adapters may wrap its layers.
        made: The small copy of its class, with weights, which is changed.
    """
    # a wrapped module follows the adapter around it, and takes its place
    originals = {below_wrappers(path): module for path, module in base.named_modules()}
    for path, module in list(made.named_modules()):
        if path in originals:
            _pack(made, path, originals[path], module)
    for path, module in made.named_modules():
        if path in originals:
            _cast(originals[path], module)
            _hook(originals[path], module)


def _pack(made: Any, path: str, original: nn.Module, module: nn.Module) -> None:
    """Pack the weight of a linear layer in 4 bits with bitsandbytes, where that of the original is packed."""
    packing = packing_of(original)
    four = packing is not None and packing.method == "bitsandbytes" and packing.bits == 4
    if packing is None or not four or type(module) is not nn.Linear:
        return
    from bitsandbytes.nn import Linear4bit, Params4bit  # an optional dependency, which made the original

    kind = packing.kind if packing.kind in ("nf4", "fp4") else "nf4"
    packed: Any = Linear4bit(
        module.in_features, module.out_features, bias=module.bias is not None, quant_type=kind, device="meta"
    )
    packed.weight = Params4bit(module.weight.data, requires_grad=False, quant_type=kind, module=packed)
    packed.bias = module.bias
    packed.to("cpu")  # packs the weight
    made.set_submodule(path, packed)
    made.is_loaded_in_4bit = True  # PEFT asks the model for it


def wrap(base: nn.Module, made: nn.Module) -> None:
    """Wrap the modules of a small copy that torch's wrapper for checkpoints wraps in the model; adapters are in it already."""
    for path, module in base.named_modules():
        if _CHECKPOINTED in module._modules:  # noqa: SLF001  # a dictionary read
            _wrap(made, below_wrappers(path), module)


def _wrap(made: nn.Module, path: str, wrapper: nn.Module) -> None:
    try:
        inner = made.get_submodule(path)
    except AttributeError:  # a layer that the small copy does not have
        return
    around = copy.copy(wrapper)
    around.__dict__["_modules"] = {_CHECKPOINTED: inner}
    made.set_submodule(path, around)


def _hook(original: nn.Module, module: nn.Module) -> None:
    """Give a module a backward hook that does nothing, where the original has one: its outputs become views."""
    if original.__dict__.get("_backward_hooks"):
        module.register_full_backward_hook(lambda *_: None)
    if original.__dict__.get("_backward_pre_hooks"):
        module.register_full_backward_pre_hook(lambda *_: None)


def _cast(original: nn.Module, module: nn.Module) -> None:
    """Cast the buffers that are of another kind in the original: numbers in place of truth values."""
    for name, buffer in module.named_buffers(recurse=False):
        kept = original._buffers.get(name)  # noqa: SLF001  # a dictionary read
        if kept is not None and kept.is_floating_point() != buffer.is_floating_point():
            buffer.data = buffer.data.to(kept.dtype)
