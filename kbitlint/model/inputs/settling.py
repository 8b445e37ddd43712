"""The run in which lazy inputs become tensors: before a layer, an operator, or another mode sees them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from kbitlint.model.inputs import consumers
from kbitlint.model.inputs.lazy_input import LazyInput, node_of, settled, tensor_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


class Settling(TorchFunctionMode):
    """A mode that settles lazy inputs before any other mode sees them, and counts the functions that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # torch's protocol
        made = settled(func, args, kwargs or {})
        self.calls += 1
        return made


@contextlib.contextmanager
def settling(mode: Settling) -> Iterator[None]:
    """Settle lazy inputs inside the ``with`` statement before layers and other modes see them."""
    handle = register_module_forward_pre_hook(_settled_for)
    try:
        with mode:
            yield
    finally:
        handle.remove()


def _settled_for(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the arguments of a module with lazy inputs that have become what it takes."""
    sessions = [node_of(value).session for value in given if isinstance(value, LazyInput)]
    leaf = consumers.of_module(module, sessions[0].batch, sessions[0].steps) if sessions else None
    return None if leaf is None else tuple(tensor_of(value, leaf) if isinstance(value, LazyInput) else value for value in given)
