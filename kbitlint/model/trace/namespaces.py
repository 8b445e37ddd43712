"""The namespaces of a model's code: global names and class attributes in which a step may store tensors without contents.

A copy of a model shares them with the model. A cache of masks under a global name, filled by a step on the copy, would hand
tensors on the meta device to the next real step.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kbitlint.model.trace.references import LRU_CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

#: packages that keep no tensor of a step under a global name or on a class
_LIBRARIES = frozenset(
    ["accelerate", "bitsandbytes", "builtins", "collections", "functools", "kbitlint", "peft", "torch", "typing"]
)
#: how deep containers of a namespace are searched
_DEPTH = 3
_ABSENT = object()


@contextlib.contextmanager
def without_leftovers(model: nn.Module) -> Iterator[None]:
    """Remove the tensors on the meta device that the body of the ``with`` statement leaves in the namespaces of a model's code.

    The former value returns. Other values stay, because a flag may stand for a registration that cannot be undone.
    """
    owners = _owners(model)
    before = [(owner, dict(vars(owner))) for owner in owners]
    values = [value for _, names in before for value in names.values()]
    contents = {id(value): (value, value.copy()) for value in values if type(value) in (dict, list)}
    filled = [(cached, cached.cache_info().misses) for value in values for cached in _caches(value)]
    try:
        yield
    finally:
        for owner, names in before:
            for name, value in list(vars(owner).items()):
                if value is not names.get(name, _ABSENT) and _holds_leftover(value):
                    _put_back(owner, name, names.get(name, _ABSENT))
        for value, former in contents.values():
            _restore(value, former)
        for cached, misses in filled:
            if cached.cache_info().misses > misses:
                cached.cache_clear()


def _caches(value: Any) -> Iterator[Any]:
    """Yield the LRU caches that a value of a namespace is, or that a decorator keeps in the closure of a function.

    transformers decorates methods so (``compile_compatible_method_lru_cache``), such as those of position embeddings.
    """
    function = getattr(value, "__func__", value)
    if isinstance(function, LRU_CACHE):
        yield function
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty cell
            if isinstance(cell.cell_contents, LRU_CACHE):
                yield cell.cell_contents


def _owners(model: nn.Module) -> list[Any]:
    """Return the classes of a model's modules, and the Python modules in which these classes and its functions are defined."""
    classes: dict[type, None] = {}
    names: dict[str, None] = {}
    for module in model.modules():
        held = vars(module)
        classes[type(module)] = None
        for hooks in (held["_forward_hooks"], held["_forward_pre_hooks"]):
            names.update(dict.fromkeys(_module_of(hook) for hook in hooks.values()))
        if "forward" in held:
            names[_module_of(held["forward"])] = None
    bases = dict.fromkeys(base for cls in classes for base in cls.__mro__ if not _is_of_library(base.__module__))
    names.update(dict.fromkeys(base.__module__ for base in bases))
    return [*bases, *(sys.modules[name] for name in names if name in sys.modules and not _is_of_library(name))]


def _module_of(function: Any) -> str:
    """Return the name of the Python module in which a hook or a forward is defined."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__module__", None) or ""


def _is_of_library(name: str) -> bool:
    return name.partition(".")[0] in _LIBRARIES


def _holds_leftover(value: Any, depth: int = _DEPTH) -> bool:
    """Return whether a value is a tensor on the meta device, or a container of one."""
    if isinstance(value, Tensor):
        return value.is_meta
    if not depth or not isinstance(value, (dict, list, tuple)):
        return False
    return any(_holds_leftover(held, depth - 1) for held in (value.values() if isinstance(value, dict) else value))


def _put_back(owner: Any, name: str, value: Any) -> None:
    if value is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def _restore(value: Any, former: Any) -> None:
    """Take the leftovers out of a container that was there before."""
    if isinstance(value, dict):
        for key, held in list(value.items()):
            if held is not former.get(key, _ABSENT) and _holds_leftover(held):
                del value[key]
                value.update({key: former[key]} if key in former else {})
        return
    known = set(map(id, former))
    for place in reversed(range(len(value))):
        if id(value[place]) not in known and _holds_leftover(value[place]):
            value[place : place + 1] = former[place : place + 1]
