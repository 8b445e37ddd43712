"""Float32 norms that keep their interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


class DtypeTransparency:
    """Lets a float32 norm keep its interface: what comes in is cast to float32, what goes out back again.

    A float32 weight alone promotes the output, the residual stream turns float32, and the first half-precision
    Linear after it fails outside autocast (81 of 188 causal-LM architectures of transformers 5.23).

    Args:
        output: The dtype to give back where float32 comes in, for norms whose caller casts to ``norm.weight.dtype``.
    """

    def __init__(self, output: torch.dtype | None = None) -> None:
        self.output = output
        self.incoming: torch.dtype | None = None

    def enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Remember the dtype of the first floating tensor and cast all half-precision ones."""
        self.incoming = None
        for value in (*args, *kwargs.values()):  # torch.compile of torch 2.7 does not take next(generator, None)
            if isinstance(value, Tensor) and value.is_floating_point():
                self.incoming = value.dtype
                break
        return tuple(_float32(value) for value in args), {name: _float32(value) for name, value in kwargs.items()}

    def leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        """Cast float32 outputs to the dtype that came in."""
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
    """Whether the module already carries the transparency hooks."""
    hooks = module._forward_pre_hooks  # noqa: SLF001  # torch has no public way to list hooks
    if not hooks:
        return False
    return any(isinstance(getattr(hook, "__self__", None), DtypeTransparency) for hook in hooks.values())
