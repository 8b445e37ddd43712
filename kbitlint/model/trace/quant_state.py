"""The state by which bitsandbytes unpacks a weight, on the weights of a copy: its shapes and dtypes, without values.

DoRA, HiRA and code of users unpack the weight in each step. bitsandbytes has meta kernels for it, which need this state.
"""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

#: the attribute of a packed 4-bit weight that was never loaded: (shape, dtype) of the unpacked weight
UNPACKED = "kbitlint_unpacked"


def give_state(original: Tensor, made: Any, empty: Callable[[Tensor], Tensor]) -> None:
    """Give the copy of a packed weight the state of its original. A weight that was never loaded gets one of its shape.

    A loaded weight that lacks its state gets none: unpacking it raises in training too.

    Args:
        original: The weight.
        made: Its copy, which is changed.
        empty: Returns the copy of a tensor.
    """
    own = original.__dict__
    if (state := own.get("quant_state")) is not None:
        made.quant_state = _emptied(state, empty)
    elif (unpacked := own.get(UNPACKED)) is not None and "bitsandbytes" in sys.modules:
        made.quant_state = _invented(original, *unpacked)
        setattr(made, UNPACKED, unpacked)
    for name in ("CB", "SCB"):
        if name in own:
            setattr(made, name, empty(own[name]) if isinstance(own[name], Tensor) else None)
    if original.is_meta and type(original).__name__ == "Int8Params" and own.get("SCB") is None:
        made.CB, made.SCB = None, original.new_empty(original.shape[:1], dtype=torch.float32)


def _emptied(state: Any, empty: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of a ``QuantState``, and of the one that is nested in it, over empty tensors."""
    made = copy.copy(state)
    for name, value in list(vars(state).items()):
        if isinstance(value, Tensor):
            setattr(made, name, empty(value))
        elif type(value) is type(state):
            setattr(made, name, _emptied(value, empty))
    return made


def _invented(weight: Tensor, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return the state that bitsandbytes makes for a weight of this shape (``quantize_4bit`` of its functional.py)."""
    from bitsandbytes.functional import QuantState  # an optional dependency, imported already

    blocksize = weight.__dict__.get("blocksize") or 64
    blocks = -(-shape[0] * shape[1] // blocksize)

    def empty(size: tuple[int, ...], kind: torch.dtype = torch.float32) -> Tensor:
        return weight.new_empty(size, dtype=kind, device="meta")

    known = {"shape": shape, "code": empty((16,)), "blocksize": blocksize, "dtype": dtype}
    known["quant_type"] = weight.__dict__.get("quant_type") or "nf4"
    if not weight.__dict__.get("compress_statistics"):
        return QuantState(absmax=empty((blocks,)), **known)
    second = QuantState(absmax=empty((-(-blocks // 256),)), code=empty((256,)), blocksize=256, dtype=torch.float32)
    return QuantState(absmax=empty((blocks,), torch.uint8), **known, offset=empty(()), state2=second)
