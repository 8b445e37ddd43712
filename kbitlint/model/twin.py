"""A copy of a model without its weights, which carries everything else: hooks, flags, modes, checkpoint functions.

Whatever is done to the twin leaves the model as it was.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kbitlint.errors import KbitlintError, one_line
from kbitlint.model.quantized import TOLD, packing_of
from kbitlint.model.standins import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator

#: integers and booleans up to this many elements keep their values: code branches on them (positions, masks, maps)
_MAX_VALUES = 2**20


class TwinError(KbitlintError):
    """A model that cannot be copied."""


@dataclass(frozen=True, slots=True)
class StandIns:
    """What stands where in a twin."""

    adapters: tuple[tuple[nn.Module, nn.Parameter], ...] = ()
    """(quantized layer, scalar) for every scalar that stands for an adapter which is not attached yet."""
    packed: tuple[tuple[nn.Module, nn.Parameter], ...] = ()
    """(quantized layer, packed weight) for every layer that is stood in for."""


def twin_of(model: nn.Module) -> nn.Module:
    """The model's structure on the meta device, with its hooks, modes, flags and checkpoint functions.

    Tensors that are tied stay tied. Hooks that were bound to a module of the model, or that hold one in their
    closure, are bound to its copy. Layers that accelerate moves between devices run where they are.

    Raises TwinError where something in the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    try:
        with _EmptyCopies():
            for tensor in _own_tensors(model):
                memo[id(tensor)] = _empty(tensor)
            memo.update(_empty_dictionaries(model))
            _bind_to_copies(list(_callables(model)), memo)
            twin = copy.deepcopy(model, memo)
    except Exception as error:
        raise TwinError(f"the model cannot be copied without its weights: {one_line(error)}") from error
    for original, module in zip(model.modules(), twin.modules(), strict=True):
        packing = packing_of(original)
        if packing is not None:
            module.__dict__[TOLD] = packing
        _run_in_place(module)
    return twin


def stand_in_quantized(twin: nn.Module, device: str, *, adapters: bool) -> StandIns:
    """Let every quantized layer of the twin compute shapes and dtypes only.

    Args:
        twin: The copy; it is changed.
        device: Whose kernels are stood in for: ``cpu`` or ``cuda``.
        adapters: Put a trainable scalar on each quantized layer, to see where adapters would learn.
    """
    scalars: list[tuple[nn.Module, nn.Parameter]] = []
    packed: list[tuple[nn.Module, nn.Parameter]] = []
    for module in twin.modules():
        packing = packing_of(module)
        if packing is None:
            continue
        scalar = nn.Parameter(torch.empty((), device="meta")) if adapters else None
        if scalar is not None:
            scalars.append((module, scalar))
        weight = module._parameters.get("weight")  # noqa: SLF001  # methods that pack under other names have none
        if weight is not None:
            packed.append((module, weight))
        module.__dict__["forward"] = stand_in(module, packing, device, scalar)
    return StandIns(tuple(scalars), tuple(packed))


def _own_tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):  # noqa: SLF001  # parameters() would skip nothing and build every name
            if tensor is not None:
                yield tensor


def _empty_dictionaries(model: nn.Module) -> Iterator[tuple[int, Any]]:
    """Copies of the dictionaries that hold nothing, by id: a module has a dozen for hooks, each slow to deepcopy."""
    for module in model.modules():
        for value in module.__dict__.values():
            if type(value) in (dict, OrderedDict) and not value:
                yield id(value), type(value)()


def _empty(tensor: Tensor) -> Tensor:
    """A tensor of the same shape, dtype and flags on meta; small integers keep their values, on the CPU.

    An inference tensor stays one: autograd refuses to save it for the backward pass.
    """
    with torch.inference_mode(mode=True) if tensor.is_inference() else contextlib.nullcontext():
        return _emptied(tensor)


def _emptied(tensor: Tensor) -> Tensor:
    shape, dtype = tensor.shape, tensor.dtype
    if isinstance(tensor, nn.Parameter):
        made: Tensor = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=tensor.requires_grad)
        for name, value in tensor.__dict__.items():  # how a packed weight is packed: quant_type, blocksize, bnb_quantized, ...
            if isinstance(value, (bool, int, str, torch.dtype)):
                setattr(made, name, value)
        if nn.Parameter in type(tensor).__mro__:  # PEFT asks for Params4bit by the name of its class
            made.__class__ = type(tensor)
        return made
    if not dtype.is_floating_point and not tensor.is_meta and tensor.numel() <= _MAX_VALUES:
        return tensor.detach().cpu().clone()
    return torch.empty(shape, dtype=dtype, device="meta")


class _EmptyCopies(TorchFunctionMode):
    """Copies of tensors that are no parameters come out empty, so that copying a model copies no weight."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer ``copy.deepcopy`` of a tensor."""
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = _empty(tensor)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


# ------------------------------------------------------------------------------------------ hooks and wrappers


def _callables(model: nn.Module) -> Iterator[Any]:
    """Functions with a closure, and callable objects, that stand as an attribute or a hook of a module.

    ``deepcopy`` would share the functions. Torch's own checkpoint is shared on purpose: it is recognised by identity.
    """
    seen: set[int] = set()
    for module in model.modules():
        for value in module.__dict__.values():
            for found in value.values() if isinstance(value, dict) else (value,):
                yield from _made_of(found, seen)


def _made_of(value: Any, seen: set[int]) -> Iterator[Any]:
    """What a callable is made of: the functions below partials, decorators, methods and callable objects."""
    if id(value) in seen or isinstance(value, (nn.Module, Tensor, type)):
        return
    seen.add(id(value))
    if isinstance(value, functools.partial):
        inner: list[Any] = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.MethodType):
        inner = [value.__self__]
    elif isinstance(value, types.FunctionType):
        if not value.__closure__ or value.__module__ == "torch.utils.checkpoint":
            return
        yield value
        inner = [*map(_contents, value.__closure__), *vars(value).values()]
    elif _is_wrapper(value):
        yield value
        inner = list(vars(value).values())
    else:
        return
    for held in inner:
        yield from _made_of(held, seen)


def _is_wrapper(value: Any) -> bool:
    """Whether an object stands for a function: one that is called and holds little else."""
    return callable(value) and hasattr(value, "__dict__") and not isinstance(value, (types.ModuleType, nn.Module, type))


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


_COPIED = (nn.Module, list, dict, set, functools.partial, types.MethodType)


def _bind_to_copies(callables: list[Any], memo: dict[int, Any]) -> None:
    """Enter into the memo the same functions and callable objects over copies of what they hold of the model.

    A closure may hold the model that holds it, so each is made before any is filled. Objects are filled by hand,
    because accelerate's refuse to be pickled and so to be copied.
    """
    for one in callables:
        if isinstance(one, types.FunctionType):
            cells = tuple(types.CellType() for _ in one.__closure__ or ())
            memo[id(one)] = types.FunctionType(one.__code__, one.__globals__, one.__name__, one.__defaults__, cells)
            memo[id(one)].__kwdefaults__ = one.__kwdefaults__
        else:
            memo[id(one)] = object.__new__(type(one))
    for one in callables:
        made = memo[id(one)]
        made.__dict__.update({name: _copied(held, memo) for name, held in vars(one).items()})
        if isinstance(one, types.FunctionType):
            for cell, original in zip(made.__closure__ or (), one.__closure__ or (), strict=True):
                cell.cell_contents = _copied(_contents(original), memo)


def _copied(held: Any, memo: dict[int, Any]) -> Any:
    """A copy of what may lead to the model; anything else is shared."""
    return copy.deepcopy(held, memo) if id(held) in memo or isinstance(held, _COPIED) else held


def _run_in_place(module: nn.Module) -> None:
    """Drop what accelerate put around a forward to move weights between devices: here nothing has to move."""
    hook = module.__dict__.pop("_hf_hook", None)
    before = module.__dict__.pop("_old_forward", None)
    if hook is None or before is None:
        return
    if getattr(before, "__func__", None) is type(module).forward:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = before
