"""A batch of the user's own, which steps take in place of an invented one."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SUPPLIED: ContextVar[Mapping[str, Any] | None] = ContextVar("kbitlint_batch", default=None)


@contextmanager
def supplied(inputs: Mapping[str, Any]) -> Iterator[None]:
    """Let steps inside the ``with`` statement take a batch of the user's own, where the model accepts it.

    Args:
        inputs: The batch, by the names of the model's arguments.
    """
    token = _SUPPLIED.set(inputs)
    try:
        yield
    finally:
        _SUPPLIED.reset(token)


def own_batch(base: nn.Module, device: Any) -> dict[str, Any] | None:
    """Return the supplied batch on a device, with the names that the model's forward has.

    None if no batch is supplied, or the supplied one lacks the model's main input.
    """
    held = _SUPPLIED.get()
    if held is None or getattr(base, "main_input_name", "input_ids") not in held:
        return None
    names = inspect.signature(base.forward).parameters
    made = {name: value for name, value in held.items() if name in names and value is not None}
    made = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in made.items()}
    return {**made, "use_cache": False} if "use_cache" in names else made
