"""The guard of the original model. It stops a step on a copy that reaches a module or a tensor of the original.

``kbitlint.model.trace.rebinding`` binds functions of the model to the copy. Two kinds of reference remain. A function may read
the model from a global name, or a class may have been created for it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kbitlint.model.trace.zeros import storage_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class TouchedError(RuntimeError):
    """The step reached the original model. It is raised before the original runs."""


class Guard:
    """A check of every module call and every operand of a step on a copy.

    Args:
        originals: The original modules with their paths. A copy of a copy has two originals.
    """

    def __init__(self, originals: Mapping[nn.Module, str]) -> None:
        self._paths = {id(module): path for module, path in originals.items()}
        tensors = [
            tensor
            for module in originals
            for tensor in (*module._parameters.values(), *module._buffers.values())  # noqa: SLF001  # tensors of the module alone, without those of its children
            if tensor is not None
        ]
        self._tensors = frozenset(map(id, tensors))
        self._storages = frozenset(filter(None, map(storage_key, tensors)))
        self._thread = threading.get_ident()
        self.touched = ""
        """The first use of the original, in words; empty if there was none. The code of the model may catch the error."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Raise TouchedError if this thread calls a module of the original inside the ``with`` statement."""
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
        """Check the tensors that an operator receives.

        Raises:
            TouchedError: A tensor belongs to the original, or is a parameter of another model.
        """
        for tensor in tensors:
            if id(tensor) in self._tensors or (not tensor.is_meta and storage_key(tensor) in self._storages):
                self._refuse("it computes with a tensor of the model itself, not of its copy")
            if not tensor.is_meta and isinstance(tensor, nn.Parameter):  # the copy's own parameters are on meta
                self._refuse("it computes with a parameter of another model")

    def _refuse(self, what: str) -> None:
        self.touched = self.touched or f"{what}: a function finds it past the attributes that a copy can follow"
        raise TouchedError(self.touched)
