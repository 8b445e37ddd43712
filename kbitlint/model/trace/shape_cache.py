"""A cache of meta kernels. The layers of a stack are alike, so one step repeats the same calls in each layer.

Meta kernels run in Python and take most of the time of a traced step. If a kernel returns no alias, its result depends only on
the shapes, strides and dtypes of its inputs.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn


class KnownShapes:
    """Results of meta kernels by operator and arguments, for one step."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Any, Any, torch.dtype]] = {}

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the result of an operator's meta kernel for arguments on meta, from the cache if it holds one."""
        if not _is_pure(func):
            return func(*args, **kwargs)
        try:
            key = (func, _key(args), tuple((name, _key(value)) for name, value in kwargs.items()))
            known = self._known.get(key)
        except TypeError:  # the arguments cannot be a key: another subclass of Tensor, a generator
            return func(*args, **kwargs)
        if known is not None:
            return torch.empty_strided(known[0], known[1], dtype=known[2], device="meta")
        made = func(*args, **kwargs)
        if type(made) is Tensor and _is_plain(made):
            self._known[key] = (made.shape, made.stride(), made.dtype)
        return made


@functools.lru_cache(maxsize=4096)
def _is_pure(func: Any) -> bool:
    """Return whether an operator returns one new tensor and writes into none."""
    schema = func._schema  # noqa: SLF001  # torch has no public name for it
    one = len(schema.returns) == 1 and str(schema.returns[0].type) == "Tensor"
    return one and all(part.alias_info is None for part in (*schema.arguments, *schema.returns))


def _key(value: Any) -> Any:
    """Return a hashable key of an argument.

    Raises:
        TypeError: The argument is a subclass of Tensor other than Parameter.
    """
    if isinstance(value, Tensor):
        if type(value) not in (Tensor, nn.Parameter):
            raise TypeError
        bits = (value.is_conj(), value.is_neg(), value.layout)
        return (value.shape, value.stride(), value.dtype, value.device.type, value.storage_offset(), bits)
    if type(value) in (list, tuple):
        return (type(value), *map(_key, value))
    return (type(value), value)


def _is_plain(made: Tensor) -> bool:
    """Return whether shape, strides and dtype describe a meta tensor completely."""
    if not made.is_meta or made.layout is not torch.strided or made.is_conj() or made.is_neg() or made.storage_offset():
        return False
    again = torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device="meta")
    return again.untyped_storage().nbytes() == made.untyped_storage().nbytes()
