"""The twin of a model: a copy without weights, with all hooks, flags, modes and checkpoint functions.

A change of the twin leaves the model unchanged.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kbitlint.errors import KbitlintError, one_line
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.attributes import is_inference
from kbitlint.model.layers.quantized import TOLD, packing_of
from kbitlint.model.trace.quant_state import give_state
from kbitlint.model.trace.rebinding import Rebinding
from kbitlint.model.trace.references import ORIGINAL
from kbitlint.model.trace.scripted import copies_of_scripts
from kbitlint.model.trace.shells import has_end, without_end
from kbitlint.model.trace.stubs import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The most elements of an integer or boolean tensor whose values are copied. Code branches on positions, masks and maps.
_MAX_VALUES = 2**20


class TwinError(KbitlintError):
    """A model that cannot be copied."""


@dataclass(frozen=True, slots=True)
class StandIns:
    """The stubs in a twin."""

    adapters: tuple[tuple[nn.Module, nn.Parameter], ...] = ()
    """(quantized layer, scalar) of each scalar in place of an adapter that is not attached yet."""
    packed: tuple[tuple[nn.Module, nn.Parameter], ...] = ()
    """(quantized layer, packed weight) of each layer whose forward is a stub."""


def twin_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model on the meta device, with its hooks, modes, flags and checkpoint functions.

    Tied tensors stay tied. Hooks and forwards that lead to a module of the model, through closures, attributes or containers,
    lead to its copy. The copy runs without the hooks by which accelerate moves weights between devices.

    Raises:
        TwinError: A part of the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    try:
        memo.update(copies_of_scripts(model))
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
        _hold_tensors(module, original, memo)
        _run_in_place(module)
        if has_end(module):
            module.__class__ = without_end(type(module))
        module.__dict__[ORIGINAL] = weakref.ref(original)
    return twin


def _hold_tensors(module: nn.Module, original: nn.Module, memo: dict[int, Any]) -> None:
    """Let a copy hold its tensors in dictionaries. compressed-tensors 0.20 holds them in caches, which move them."""
    for kind in ("_parameters", "_buffers"):
        if not isinstance(module.__dict__[kind], dict):
            held = getattr(original, kind).items()
            module.__dict__[kind] = {name: one if one is None else memo.get(id(one), _empty(one)) for name, one in held}


def originals_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the original of a module in a twin. If that is a copy itself, its originals follow."""
    reference = module.__dict__.get(ORIGINAL)
    while reference is not None and (original := reference()) is not None:
        yield original
        reference = original.__dict__.get(ORIGINAL)


def stand_in_quantized(twin: nn.Module, device: str, *, adapters: bool) -> StandIns:
    """Replace the forward of every quantized layer of a twin by a stub that computes shapes and dtypes only.

    Args:
        twin: The copy, which is changed.
        device: The device whose kernels are simulated, ``cpu`` or ``cuda``.
        adapters: Whether each quantized layer gets a trainable scalar in place of an adapter.
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
        weight = module._parameters.get("weight")  # noqa: SLF001  # some methods store their packed weight under another name
        if weight is not None:
            packed.append((module, weight))
        module.__dict__["forward"] = stand_in(module, packing, device, scalar)
    return StandIns(tuple(scalars), tuple(packed))


def _empty_dictionaries(model: nn.Module) -> Iterator[tuple[int, Any]]:
    """Yield (id, copy) of each empty dictionary of the modules.

    A module has a dozen of them for hooks, and ``deepcopy`` is slow on each.
    """
    for module in model.modules():
        for value in module.__dict__.values():
            if type(value) in (dict, OrderedDict) and not value:
                yield id(value), type(value)()


def _empty(tensor: Tensor) -> Tensor:
    """Return an empty meta tensor of the same shape, dtype and flags. Small integer tensors keep their values, on the CPU.

    An inference tensor stays one, since autograd refuses to save it for the backward pass.
    """
    with torch.inference_mode(mode=True) if is_inference(tensor) else contextlib.nullcontext():
        return _emptied(tensor)


def _emptied(tensor: Tensor) -> Tensor:
    shape, dtype = tensor.shape, tensor.dtype
    if isinstance(tensor, nn.Parameter):
        made: Tensor = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=tensor.requires_grad)
        for name, value in tensor.__dict__.items():  # the format of a packed weight: quant_type, blocksize, bnb_quantized, ...
            if isinstance(value, (bool, int, str, torch.dtype)):
                setattr(made, name, value)
        if nn.Parameter in type(tensor).__mro__:  # PEFT recognises Params4bit by the name of its class
            made.__class__ = type(tensor)
            give_state(tensor, made, _empty)
        return made
    if not dtype.is_floating_point and not tensor.is_meta and tensor.numel() <= _MAX_VALUES:
        return tensor.detach().cpu().clone()
    trained = tensor.is_leaf and tensor.requires_grad  # a plain tensor that is trained like a parameter
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=trained)


class _EmptyCopies(TorchFunctionMode):
    """A function mode in which ``deepcopy`` of a tensor returns an empty one. The copy of a model thus copies no weight."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace ``Tensor.__deepcopy__``, and run every other function."""
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = _empty(tensor)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _run_in_place(module: nn.Module) -> None:
    """Remove the hooks that move, cast or unpack weights, which a twin has not. A user's own hook stays.

    They are those of accelerate, and of compressed-tensors 0.20 the one that unpacks a whole model in its first forward pass.
    """
    for number, unpacks in list(module._forward_pre_hooks.items()):  # noqa: SLF001  # torch has no public way to list hooks
        if getattr(unpacks, "__module__", "").startswith("compressed_tensors.compressors"):
            del module._forward_pre_hooks[number]  # noqa: SLF001  # see above
    hook = module.__dict__.get("_hf_hook")
    if hook is None:
        return
    kept = tuple(one for one in getattr(hook, "hooks", (hook,)) if not _moves_weights(one))
    if kept:
        if hasattr(hook, "hooks"):  # accelerate's SequentialHook
            hook.hooks = kept
        return
    del module.__dict__["_hf_hook"]
    before = module.__dict__.pop("_old_forward", None)
    if before is None:
        return
    if getattr(before, "__func__", None) is type(module).forward:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = before


def _moves_weights(hook: Any) -> bool:
    """Return whether a hook is one of accelerate's own classes, or derives from one of them that does something.

    ``ModelHook`` does nothing, and is what users derive from. A hook with ``no_grad`` cuts gradients, so it stays.
    """
    classes = [base for base in type(hook).__mro__ if base.__module__ == "accelerate.hooks"]
    own = type(hook) in classes or any(base.__name__ != "ModelHook" for base in classes)
    return own and not getattr(hook, "no_grad", False)
