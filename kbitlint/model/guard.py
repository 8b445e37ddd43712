"""Refuses a step on a copy that leads back to the original: a call of one of its modules, a use of one of its tensors.

What is bound to a model is bound to its copy (``kbitlint.model.rebinding``). Two ways back remain: a function that finds
the model under a global name, and a class that was made for it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kbitlint.model.walk import places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class TouchedError(RuntimeError):
    """The step reached the original; it is raised before anything of it runs."""


class Guard:
    """Knows the modules and tensors of a model that no step on its copy may reach.

    Args:
        original: The model; None where it is gone, and nothing but foreign parameters are refused.
    """

    def __init__(self, original: nn.Module | None) -> None:
        self._original = original
        modules = () if original is None else tuple(original.modules())
        tensors = [
            tensor
            for module in modules
            for tensor in (*module._parameters.values(), *module._buffers.values())  # noqa: SLF001  # own tensors only
            if tensor is not None
        ]
        self._modules = frozenset(map(id, modules))
        self._tensors = frozenset(map(id, tensors))
        self._storages = frozenset(filter(None, map(_storage, tensors)))
        self._thread = threading.get_ident()
        self.touched = ""
        """What was reached first; empty while nothing was. Code may have caught the error."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Refuse calls of the original's modules by this thread."""
        handle = register_module_forward_pre_hook(self._see_module)
        try:
            yield
        finally:
            handle.remove()

    def _see_module(self, module: nn.Module, _: Any) -> None:
        if id(module) in self._modules and threading.get_ident() == self._thread:
            assert self._original is not None  # noqa: S101  # it has modules
            path = next(path for path, known in places(self._original) if known is module)
            self._refuse(f"it calls {path or 'the model'} of the model itself, not of its copy")

    def see(self, tensors: Sequence[Tensor]) -> None:
        """Refuse what an operator is given, where it belongs to the original."""
        for tensor in tensors:
            if id(tensor) in self._tensors or (not tensor.is_meta and self._is_foreign(tensor)):
                self._refuse("it computes with a tensor of the model itself, not of its copy")

    def _is_foreign(self, tensor: Tensor) -> bool:
        """Whether a tensor that has contents shares those of the original, or is a parameter: copies have none."""
        return isinstance(tensor, nn.Parameter) or _storage(tensor) in self._storages

    def _refuse(self, what: str) -> None:
        self.touched = self.touched or f"{what}: a function finds it past the attributes that a copy can follow"
        raise TouchedError(self.touched)


def _storage(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  # the one identity that a storage has
    except (RuntimeError, NotImplementedError):  # sparse tensors and wrappers have none
        return None
