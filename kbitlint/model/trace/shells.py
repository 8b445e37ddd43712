"""Shells: empty objects in place of those that functions of a model hold, and iterators that a copy may not advance.

``Rebinding`` fills a shell with copies of the attributes. Without it a step on the copy writes into the user's own objects.
"""

from __future__ import annotations

import array
import copy
import enum
import io
import itertools
import random
import sys
import types
from typing import Any

import torch

from kbitlint.model.trace.guard import TouchedError
from kbitlint.model.trace.references import attributes

#: packages whose objects are shared: they stand for a thread, a file, a process or a registry of the interpreter or of torch
_SHARED = frozenset(
    [
        "_thread",
        "abc",
        "asyncio",
        "concurrent",
        "ctypes",
        "io",
        "logging",
        "multiprocessing",
        "socket",
        "subprocess",
        "tempfile",
        "threading",
        "torch",
        "typing",
        "unittest",
    ]
)
#: ``object.__new__`` refuses these, and their own constructor takes no argument
_BUILTIN = (types.SimpleNamespace,)
_DATA = (bytearray, array.array, io.BytesIO, io.StringIO, random.Random, torch.Generator)
#: larger data are tables to read, not counts of a hook
_MAX_BYTES = 2**24
#: bits of ``type.__flags__`` (CPython's object.h): ``Py_TPFLAGS_HEAPTYPE``, which classes of a ``class`` statement have, and
#: ``Py_TPFLAGS_IMMUTABLETYPE``, which classes written in C have that have the first one too: those of itertools since 3.12
_HEAP, _IMMUTABLE = 1 << 9, 1 << 8


def is_copyable(value: Any, held: dict[str, frozenset[int]]) -> bool:
    """Return whether an object is plain state: its class is written in Python, and no module holds it under a global name.

    Objects that code compares by identity are none, such as members of an enumeration.

    Args:
        value: The object.
        held: The ids of global values by the name of their module, filled here.
    """
    if isinstance(value, _BUILTIN):
        return True
    cls = type(value)
    if not _is_made_by_statement(cls) or isinstance(value, enum.Enum) or not attributes(value):
        return False
    if any(base.__module__.partition(".")[0] in _SHARED for base in cls.__mro__):
        return False
    return not _is_global(value, held)


def _is_global(value: Any, held: dict[str, frozenset[int]]) -> bool:
    """Return whether the module that defines a class holds the object under a name, as a library holds its registries."""
    name = type(value).__module__
    if name not in held:
        held[name] = frozenset(map(id, list(getattr(sys.modules.get(name), "__dict__", {}).values())))
    return id(value) in held[name]


def shell(value: Any) -> Any:
    """Return an object of the same class without attributes. Its end runs no ``__del__``, which may close a file.

    Raises:
        TypeError: A base class is written in C and has memory of its own.
    """
    cls = type(value)
    if isinstance(value, _BUILTIN):
        return cls()
    return object.__new__(without_end(cls) if has_end(value) else cls)


def has_end(value: Any) -> bool:
    """Return whether the class of an object has a ``__del__``."""
    return hasattr(type(value), "__del__")


def without_end(cls: type) -> type:
    """Return a subclass of the same name whose objects end without a call of ``__del__``."""
    return type(cls.__name__, (cls,), {"__slots__": (), "__module__": cls.__module__, "__del__": lambda _: None})


def is_data(value: Any) -> bool:
    """Return whether an object is mutable data that ``deepcopy`` copies whole and that holds no module, such as an array."""
    return isinstance(value, _DATA) or type(value).__module__.partition(".")[0] == "numpy"


def copied_data(value: Any) -> Any:
    """Return a copy of data. Data of more than ``_MAX_BYTES``, and data that cannot be copied, are shared."""
    if max(sys.getsizeof(value), getattr(value, "nbytes", 0)) > _MAX_BYTES:
        return value
    try:
        return copy.deepcopy(value)
    except (TypeError, RuntimeError, NotImplementedError):  # a generator of a device whose state cannot be read
        return value


def is_iterator(value: Any) -> bool:
    """Return whether an object is an iterator of the interpreter, such as a generator. Files are iterators, but are shared."""
    cls = type(value)
    return hasattr(cls, "__next__") and not _is_made_by_statement(cls) and not isinstance(value, io.IOBase)


def _is_made_by_statement(cls: type) -> bool:
    """Return whether a ``class`` statement made a class, so that its objects are written in Python."""
    return bool(cls.__flags__ & _HEAP) and not cls.__flags__ & _IMMUTABLE


class KeptIterator:
    """An object in place of an iterator that cannot be copied. Its values belong to the original, so none is taken."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def copied(cls, value: Any) -> Any:
        """Return a copy of a count, and a KeptIterator for every other iterator."""
        return copy.copy(value) if isinstance(value, itertools.count) else cls(type(value).__name__)

    def __iter__(self) -> KeptIterator:
        """Return the iterator itself."""
        return self

    def __next__(self) -> Any:
        """Raise TouchedError."""
        raise TouchedError(f"it takes the next value of a {self.name} of the model itself, which cannot be copied")

    def send(self, *_: Any) -> Any:
        """Raise TouchedError, as ``__next__`` does."""
        return next(self)

    throw = send

    def close(self) -> None:
        """Leave the original open."""
