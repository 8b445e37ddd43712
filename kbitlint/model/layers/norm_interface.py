"""Hooks with which a norm computes in float32 and returns the dtype of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


class DtypeTransparency:
    """The hook pair of a float32 norm. It casts inputs to float32, and outputs back to the dtype of the input.

    A float32 weight alone promotes the output, and thus the whole residual stream. The first half-precision Linear after it
    then fails outside autocast (81 of 188 causal-LM architectures of transformers 5.23).

    Args:
        output: The dtype of the output if the input is float32, for norms whose caller casts to ``norm.weight.dtype``. None
            leaves the output unchanged.
        widens: Whether the output stays in float32 for any input, for heads whose loss has no half-precision kernel.
    """

    def __init__(self, output: torch.dtype | None = None, *, widens: bool = False) -> None:
        self.output = output
        self.widens = widens
        self.incoming: torch.dtype | None = None

    def enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Record the dtype of the first floating-point tensor, and cast all half-precision tensors to float32."""
        self.incoming = None
        for value in (*args, *kwargs.values()):  # torch.compile of torch 2.7 does not accept next(generator, None)
            if isinstance(value, Tensor) and value.is_floating_point():
                self.incoming = value.dtype
                break
        return tuple(_float32(value) for value in args), {name: _float32(value) for name, value in kwargs.items()}

    def leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        """Cast float32 outputs to the dtype of the input, unless they stay in float32."""
        if self.widens:
            return output
        wanted = self.incoming if self.incoming in HALF else self.output
        return output if wanted is None else _cast(output, wanted)


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.dtype is torch.float32 else value
    if type(value) in (tuple, list):
        return type(value)(_cast(item, dtype) for item in value)
    return value


def is_transparent(module: nn.Module) -> bool:
    """Return whether the module already has these hooks."""
    hooks = module._forward_pre_hooks  # noqa: SLF001  # torch has no public way to list hooks
    if not hooks:
        return False
    return any(isinstance(getattr(hook, "__self__", None), DtypeTransparency) for hook in hooks.values())
