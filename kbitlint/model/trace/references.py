"""What an object refers to in one step: its contents, its attributes, and what a function closes over.

``Rebinding`` follows these references from a model. Nothing is copied or changed here.
"""

from __future__ import annotations

import collections
import functools
import gc
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ATOMS = frozenset(
    [type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, types.CodeType, torch.dtype, torch.device]
)
LRU_CACHE: Any = type(functools.lru_cache(int))
CONTAINERS = (dict, list, tuple, set, frozenset, collections.deque)
FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinMethodType, functools.partial, LRU_CACHE, weakref.ref)
#: under this name each module of a copy holds a weak reference to the one that it is a copy of
ORIGINAL = "_kbitlint_original"
#: what a module's dictionary holds under these names is not looked through: tensors are copied with the module
OWN = ("_parameters", "_buffers", ORIGINAL)


def referents(value: Any) -> Iterator[Any]:
    """What something leads to in one step, without what leads nowhere."""
    for held in _parts(value):
        if not _leads_nowhere(held):
            yield held


def _leads_nowhere(value: Any) -> bool:
    """Return whether a value is a plain value, a class or an empty container."""
    return type(value) in ATOMS or isinstance(value, type) or (isinstance(value, CONTAINERS) and not value)


def _parts(value: Any) -> Iterable[Any]:
    """Return the parts of a value: contents, attributes, and the closure of a function."""
    if isinstance(value, torch.jit.ScriptModule):  # it holds a program, and is copied as a whole
        return ()
    if isinstance(value, nn.Module):
        return [held for name, held in vars(value).items() if name not in OWN]
    if isinstance(value, FUNCTIONS):
        return _parts_of_function(value)
    if isinstance(value, dict):
        factory = getattr(value, "default_factory", None) if isinstance(value, collections.defaultdict) else None
        return [*value, *value.values(), factory, *attributes(value).values()]
    if isinstance(value, CONTAINERS):
        return [*value, *attributes(value).values()]
    if isinstance(value, types.MappingProxyType):
        return gc.get_referents(value)
    return attributes(value).values()


def _parts_of_function(value: Any) -> Iterable[Any]:
    if isinstance(value, types.MethodType):
        return (value.__func__, value.__self__)
    if isinstance(value, types.BuiltinMethodType):
        return (value.__self__,)
    if isinstance(value, weakref.ref):
        return (value(),)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values(), *vars(value).values()]
    closed = [held for cell in getattr(value, "__closure__", None) or () for held in contents(cell)]
    defaults = [*(getattr(value, "__defaults__", None) or ()), *(getattr(value, "__kwdefaults__", None) or {}).values()]
    return [*closed, *defaults, *vars(value).values()]


def contents(cell: types.CellType) -> tuple[Any, ...]:
    """What a cell holds; nothing where it is not filled yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def attributes(value: Any) -> dict[str, Any]:
    """Attributes of an object, those in slots among them, read past its properties and ``__getattr__``."""
    found: dict[str, Any] = {}
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            member = cls.__dict__.get(name)
            if isinstance(member, types.MemberDescriptorType):
                try:
                    found[name] = member.__get__(value)
                except AttributeError:  # not set
                    continue
    return found | dictionary(value)


def dictionary(value: Any) -> dict[str, Any]:
    """The attributes of an object that stand in its dictionary; an empty one where it has none."""
    try:
        return object.__getattribute__(value, "__dict__")  # type: ignore[no-any-return]  # it is a dictionary
    except AttributeError:
        return {}


def is_callable(value: Any) -> bool:
    """Return whether a value is callable or refers to a callable."""
    return isinstance(value, FUNCTIONS) or callable(value)


def is_wrapper(value: Any) -> bool:
    """Return whether an object wraps a function: it is callable and has attributes.

    accelerate 1.15's ``ConvertOutputsToFp32`` (``accelerate/utils/operations.py``) is one, and refuses ``deepcopy``.
    """
    return callable(value) and bool(dictionary(value)) and type(value).__module__ != "torch._ops"


def is_of_class(method: types.MethodType) -> bool:
    """Return whether the class of a method's owner defines the method.

    Such functions are shared if they do not lead to the model, because code recognises them by identity.
    """
    function: Any = method.__func__
    return getattr(type(method.__self__), getattr(function, "__name__", ""), None) is function


def has_state(function: Any) -> bool:
    """Return whether a function holds values of its own: in its closure, its defaults or its attributes."""
    if not isinstance(function, types.FunctionType):
        return False
    return any((function.__closure__, function.__defaults__, function.__kwdefaults__, vars(function)))


def is_importable(function: types.FunctionType) -> bool:
    """Return whether a Python module holds a function under its name.

    Such functions are shared if they do not lead to the model, because code recognises them by identity. torch's checkpoint is
    one.
    """
    module = sys.modules.get(function.__module__ or "")
    return getattr(module, "__dict__", {}).get(function.__name__) is function
