"""A copy of a model without its weights, which carries everything else: hooks, flags, modes, checkpoint functions.

Whatever is done to the twin leaves the model as it was.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kbitlint.errors import KbitlintError, one_line
from kbitlint.model.layers.quantized import TOLD, packing_of
from kbitlint.model.trace.rebinding import Rebinding
from kbitlint.model.trace.references import ORIGINAL
from kbitlint.model.trace.stubs import stand_in

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

    Tensors that are tied stay tied. Hooks and forwards that lead to a module of the model, through a closure or in any
    other way that can be followed, lead to its copy. Layers that accelerate moves between devices run where they are.

    Raises TwinError where something in the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    try:
        with _EmptyCopies():
            rebinding = Rebinding(memo, _empty)
            rebinding.find(model)
            for place, copied in _empty_dictionaries(model):
                memo.setdefault(place, copied)
            twin = copy.deepcopy(model, memo)
            rebinding.bind(twin)
    except Exception as error:
        raise TwinError(f"the model cannot be copied without its weights: {one_line(error)}") from error
    for original, module in zip(model.modules(), twin.modules(), strict=True):
        packing = packing_of(original)
        if packing is not None:
            module.__dict__[TOLD] = packing
        _run_in_place(module)
        module.__dict__[ORIGINAL] = weakref.ref(original)
    return twin


def originals_of(module: nn.Module) -> Iterator[nn.Module]:
    """The module that a module of a twin is a copy of, and where that is a copy itself, the one that it is a copy of."""
    reference = module.__dict__.get(ORIGINAL)
    while reference is not None and (original := reference()) is not None:
        yield original
        reference = original.__dict__.get(ORIGINAL)


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
