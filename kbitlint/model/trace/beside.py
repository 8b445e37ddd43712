"""What a step trains or writes beside the parameters: tensors that no module registers, and buffers of the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.model.inspect.walk import named_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Attributes of every module. What they hold is registered, or is a hook.
_OWN = frozenset(vars(nn.Module()))
#: The name below which PEFT keeps the copies that an adapter saves whole.
_SAVED_COPIES = "modules_to_save"
#: The counter of batch norm, which it writes with its statistics.
_BATCHES = "num_batches_tracked"

Buffers = dict[str, tuple[nn.Module, str, Tensor, int]]
"""Path of a buffer -> its module, its name there, the tensor, and how often it had been written."""


def strays_in(twin: nn.Module) -> dict[str, Tensor]:
    """Return the leaf tensors that require grad and that attributes hold, by path, without the registered parameters.

    They are plain tensors, and the parameters of modules in a list, a tuple or a dictionary of Python.
    """
    known = {id(parameter) for parameter in twin.parameters()}
    modules = set(twin.modules())
    return {
        place: tensor
        for path, module in named_modules(twin)
        for name, value in vars(module).items()
        if name not in _OWN
        for place, tensor in _leaves(value, f"{path}.{name}" if path else name, modules)
        if id(tensor) not in known
    }


def _leaves(value: Any, place: str, modules: set[nn.Module], depth: int = 2) -> Iterator[tuple[str, Tensor]]:
    """Yield (place, leaf tensor that requires grad) of an attribute, at most two containers deep."""
    if isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf:
            yield place, value
    elif isinstance(value, nn.Module):
        if value not in modules:
            yield from ((f"{place}.{name}", one) for name, one in value.named_parameters() if one.requires_grad)
    elif depth and type(value) in (list, tuple, dict):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(one, f"{place}[{key}]", modules, depth - 1)


def buffers_in(twin: nn.Module) -> Buffers:
    """Return the buffers of a twin that ``state_dict`` holds and that no adapter saves."""
    return {
        f"{path}.{name}" if path else name: (module, name, tensor, tensor._version)  # noqa: SLF001  # torch counts the writes there
        for path, module in named_modules(twin)
        for name, tensor in vars(module)["_buffers"].items()
        if tensor is not None
        and (tensor.is_floating_point() or name == _BATCHES)  # counters alone change no output
        and name not in module._non_persistent_buffers_set  # noqa: SLF001  # torch has no public name for it
        and not tensor.is_inference()
        and _SAVED_COPIES not in path.split(".")
    }


def weights_in(twin: nn.Module) -> Buffers:
    """Return the frozen weights that their own layer may write: an embedding with ``max_norm`` shortens the rows it reads."""
    found: Buffers = {}
    for path, module in named_modules(twin):
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
            weight: Any = module.weight
            if not weight.requires_grad and _SAVED_COPIES not in path.split("."):
                found[f"{path}.weight" if path else "weight"] = (module, "weight", weight, weight._version)  # noqa: SLF001  # torch counts the writes there
    return found


def written(buffers: Buffers) -> Iterator[str]:
    """Yield the paths of the buffers that a step wrote or replaced, and on which an output depends.

    Batch norm counts its batches, and moves its running statistics by its momentum with each.
    """
    for path, (module, name, tensor, version) in buffers.items():
        held = vars(module)["_buffers"] if name in vars(module)["_buffers"] else vars(module)["_parameters"]
        if held.get(name) is tensor and tensor._version == version:  # noqa: SLF001  # see above
            continue
        if name != _BATCHES:
            if not isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001  # the base of all batch norms
                yield path
        elif getattr(module, "momentum", None) != 0 and getattr(module, "running_mean", None) is not None:
            yield f"{path.removesuffix(name)}running_mean"
