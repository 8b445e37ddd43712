"""Refuses a step on a copy that leads back to the original: a call of one of its modules, a use of one of its tensors.

What is bound to a model is bound to its copy (``kbitlint.model.trace.rebinding``). Two ways back remain: a function that finds
the model under a global name, and a class that was made for it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class TouchedError(RuntimeError):
    """The step reached the original; it is raised before anything of it runs."""


class Guard:
    """Knows the modules and tensors of a model that no step on its copy may reach.

    Args:
        originals: Path of each module by the original that it is a copy of; a copy of a copy has two.
    """

    def __init__(self, originals: Mapping[nn.Module, str]) -> None:
        self._paths = {id(module): path for module, path in originals.items()}
        tensors = [
            tensor
            for module in originals
            for tensor in (*module._parameters.values(), *module._buffers.values())  # noqa: SLF001  # own tensors only
            if tensor is not None
        ]
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
        path = self._paths.get(id(module))
        if path is not None and threading.get_ident() == self._thread:
            self._refuse(f"it calls {path or 'the model'} of the model itself, not of its copy")

    def see(self, tensors: Sequence[Tensor]) -> None:
        """Refuse what an operator is given, where it belongs to the original or is the parameter of another model."""
        for tensor in tensors:
            if id(tensor) in self._tensors or (not tensor.is_meta and _storage(tensor) in self._storages):
                self._refuse("it computes with a tensor of the model itself, not of its copy")
            if not tensor.is_meta and isinstance(tensor, nn.Parameter):  # a copy's have no contents
                self._refuse("it computes with a parameter of another model")

    def _refuse(self, what: str) -> None:
        self.touched = self.touched or f"{what}: a function finds it past the attributes that a copy can follow"
        raise TouchedError(self.touched)


def _storage(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  # the one identity that a storage has
    except (RuntimeError, NotImplementedError):  # sparse tensors and wrappers have none
        return None
