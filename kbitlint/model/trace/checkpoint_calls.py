"""Observation of every call of ``torch.utils.checkpoint.checkpoint`` that a model makes."""

from __future__ import annotations

import functools
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model.layers.checkpointing import FUNCTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Remote code imports the function by name, so the globals of its Python modules are replaced while a step runs.
_LOCK = threading.RLock()


@contextmanager
def observed(model: nn.Module, see: Callable[[nn.Module | None, bool | None, bool], None]) -> Iterator[None]:
    """Call ``see(module, use_reentrant, requires_grad)`` for every checkpoint that the model makes.

    Functions bound to layers are wrapped on the model itself, which is a twin. Functions called by name are replaced in the
    Python modules of the model's classes, and restored at the end.

    Args:
        model: The twin.
        see: Receives the module, ``use_reentrant`` as passed (None if it is not), and whether an input requires grad. The
            module is the one that the function is bound to, or None if code calls it by name. A layer of transformers 4 calls
            it before its forward hooks run.
    """
    genuine = torch.utils.checkpoint.checkpoint

    def seen_at(module: nn.Module | None) -> Callable[..., Any]:
        @functools.wraps(genuine)
        def checkpoint(function: Any, *args: Any, use_reentrant: bool | None = None, **kwargs: Any) -> Any:
            see(module, use_reentrant, any(isinstance(value, Tensor) and value.requires_grad for value in args))
            return genuine(function, *args, use_reentrant=use_reentrant, **kwargs)

        return checkpoint

    for module in model.modules():
        bound = module.__dict__.get(FUNCTION)
        if bound is not None:
            module.__dict__[FUNCTION] = _through(bound, genuine, seen_at(module))
    checkpoint = seen_at(None)
    with _LOCK:
        places = [(torch.utils.checkpoint.__dict__, "checkpoint"), *_imports(model, genuine)]
        for namespace, name in places:
            namespace[name] = checkpoint
        try:
            yield
        finally:
            for namespace, name in places:
                namespace[name] = genuine


def _through(bound: Any, genuine: Any, checkpoint: Any) -> Any:
    """Return the bound function with the observer in place of torch's checkpoint. Partials around it are kept."""
    if bound is genuine:
        return checkpoint
    if isinstance(bound, functools.partial):
        return functools.partial(_through(bound.func, genuine, checkpoint), *bound.args, **bound.keywords)
    return bound


def _imports(model: nn.Module, genuine: Any) -> list[tuple[dict[str, Any], str]]:
    """Return (namespace, name) of each import of the function in the Python modules of the model's classes and functions."""
    names = {cls.__module__ for module in model.modules() for cls in type(module).__mro__}
    for module in model.modules():
        bound = module.__dict__.get(FUNCTION)
        while isinstance(bound, functools.partial):
            bound = bound.func
        names.add(getattr(bound, "__module__", None) or "")
    names -= {"torch.utils.checkpoint"}
    spaces = [vars(sys.modules[name]) for name in sorted(names) if name in sys.modules]
    return [(space, name) for space in spaces for name, value in list(space.items()) if value is genuine]
