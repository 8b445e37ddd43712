"""Hooks of parameters that leave no gradient: each is tried on a gradient of random numbers.

A copy of a model has no hooks of tensors. Only functions that compute with their argument and with tensors, and that write
nothing else, are called. Functions of libraries, which reduce or offload gradients, are not.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model.attributes import attribute
from kbitlint.model.inspect.walk import named_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The most elements of a parameter whose hooks are tried.
_MAX_ELEMENTS = 2**24
#: Names that a hook may use: attributes and functions of tensors that change nothing but their argument.
_PURE = frozenset(
    [
        *("torch", "grad", "data", "shape", "dtype", "device", "ndim", "size", "numel", "dim", "T", "t", "float", "half"),
        *("bfloat16", "float32", "float16", "to", "type_as", "clone", "detach", "contiguous", "view", "reshape", "view_as"),
        *(
            "mul",
            "mul_",
            "div",
            "div_",
            "add",
            "add_",
            "sub",
            "sub_",
            "neg",
            "abs",
            "sign",
            "sum",
            "mean",
            "norm",
            "max",
            "min",
        ),
        *(
            "zero_",
            "fill_",
            "zeros_like",
            "ones_like",
            "full_like",
            "new_zeros",
            "new_ones",
            "zeros",
            "ones",
            "where",
            "tensor",
        ),
        *(
            "clamp",
            "clamp_",
            "nan_to_num",
            "nan_to_num_",
            "masked_fill",
            "masked_fill_",
            "triu",
            "tril",
            "unsqueeze",
            "expand_as",
        ),
        *("isnan", "isfinite", "any", "all", "requires_grad", "no_grad", "len", "range", "int", "bool", "slice", "None"),
    ]
)
#: What a hook may close over.
_VALUES = (Tensor, bool, int, float, str, type(None), torch.dtype, torch.device, slice)


def without_gradient(model: nn.Module) -> Iterator[str]:
    """Yield the paths of the trainable parameters whose own hooks make each gradient zero, or drop it."""
    for path, module in named_modules(model):
        for name, parameter in module._parameters.items():  # noqa: SLF001  # parameters of the module alone
            if parameter is None or not parameter.requires_grad:
                continue
            before, after = (_hooks(parameter, kind) for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"))
            if (before or after) and parameter.numel() <= _MAX_ELEMENTS and _leaves_none(parameter, before, after):
                yield f"{path}.{name}" if path else name


def _hooks(parameter: Tensor, kind: str) -> list[Any]:
    return list((attribute(parameter, kind) or {}).values())


def _leaves_none(parameter: Tensor, before: list[Any], after: list[Any]) -> bool:
    """Return whether nothing is left of a random gradient after the hooks, as far as they can be tried."""
    held = torch.empty_like(parameter, requires_grad=True)
    gradient: Any = torch.randn_like(parameter, requires_grad=False)
    try:
        with torch.no_grad():
            for hook in filter(_is_pure, before):
                found = hook(gradient)
                gradient = gradient if found is None else found
            held.grad = gradient
            for hook in filter(_is_pure, after):
                hook(held)
    except Exception:  # noqa: BLE001  # code of the user, which may expect more than a tensor
        return False
    return held.grad is None or not bool(held.grad.any())


def _is_pure(hook: Any) -> bool:
    """Return whether a hook only computes with tensors, as far as its names and its closure tell."""
    if not isinstance(hook, types.FunctionType):
        return isinstance(hook, types.BuiltinFunctionType) and hook.__name__ in _PURE
    code, cells = hook.__code__, [cell.cell_contents for cell in hook.__closure__ or ()]
    further = [name for name in code.co_names if name not in _PURE]  # globals of the hook's file, such as a mask
    values = [*cells, *(hook.__defaults__ or ()), *(hook.__globals__.get(name, hook) for name in further)]
    nested = any(isinstance(constant, types.CodeType) for constant in code.co_consts)
    return not nested and all(isinstance(value, _VALUES) for value in values)
