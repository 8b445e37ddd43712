"""Rebinding of a copied model: its closures, methods, partials and objects then lead to the copy, not to the original.

``copy.deepcopy`` shares functions and their closures. TRL 1.16 sets ``model.forward`` to a function that closes over the
model's own forward (``add_fused_lm_head`` in ``trl/trainer/utils.py``). accelerate 1.15 does the same for autocast
(``prepare_model`` in ``accelerate/accelerator.py``). A copy with such a function would run the original. Functions and cells
are created anew, so the original stays unchanged.
"""

from __future__ import annotations

import collections
import copy
import functools
import gc
import types
import weakref
from dataclasses import field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.trace.references import (
    ATOMS,
    CONTAINERS,
    FUNCTIONS,
    LRU_CACHE,
    OWN,
    attributes,
    contents,
    dictionary,
    has_state,
    is_importable,
    is_of_class,
    is_wrapper,
)
from kbitlint.model.trace.search import search
from kbitlint.model.trace.shells import KeptIterator, copied_data, is_copyable, is_data, is_iterator, shell

if TYPE_CHECKING:
    from collections.abc import Callable

#: The most elements of a container whose elements are copied although it leads to no module. Larger ones are data.
_MAX_SEARCHED = 1000

#: ``OptimizedModule`` calls its context while ``deepcopy`` makes it again, so the context is copied before it, whole
_COMPILER = "torch._dynamo."


@dataclass(slots=True)
class Rebinding:
    """The objects that lead to a model and that ``deepcopy`` shares.

    They are found before the copy is made, and bound to the copy afterwards.

    Args:
        memo: The memo of ``deepcopy``. Copies of tensors and empty copies of callable objects are added to it.
        empty: Returns the copy of a tensor.
    """

    memo: dict[int, Any]
    empty: Callable[[Tensor], Tensor]
    _objects: list[tuple[Any, Any]] = field(default_factory=list)
    """(object, empty copy) of callable objects, and of objects below functions that lead to the model."""
    _leading: set[int] = field(default_factory=set)
    """Ids of the objects that lead to a module or to one of its tensors."""
    _needed: bool = False
    """Whether the model holds a function that must be created anew."""
    _cells: dict[int, types.CellType] = field(default_factory=dict)
    """Copies of closure cells, by the id of the original."""
    _owned: set[int] = field(default_factory=set)
    """Ids of copies. These objects may be changed."""
    _todo: list[Any] = field(default_factory=list)
    """Copies that may still hold objects of the original."""

    def find(self, model: nn.Module) -> None:
        """Search a model for functions and objects that lead to it, and add copies of its tensors to the memo.

        Raises:
            TooMuchError: The functions lead to more than ``MAX_SCANNED`` objects.
        """
        below, tensors, holders = search(model, self._enter, self._leading)
        self._leading.update(id(tensor) for tensor in tensors if id(tensor) in self.memo)
        todo = list(self._leading)
        while todo:
            new = [holder for holder in holders.pop(todo.pop(), ()) if holder not in self._leading]
            self._leading.update(new)
            todo += new
        held: dict[str, frozenset[int]] = {}
        for value in below:
            if isinstance(value, torch.jit.ScriptFunction):  # a program without weights, which nothing can copy
                self.memo[id(value)] = value
            elif isinstance(value, FUNCTIONS):
                self._needed = self._needed or id(value) in self._leading or has_state(value)
            elif type(value).__module__.startswith(_COMPILER) or isinstance(value, (*CONTAINERS, types.MappingProxyType)):
                continue
            elif is_data(value):
                self.memo[id(value)] = copied_data(value)
            elif is_iterator(value):
                self.memo[id(value)] = KeptIterator.copied(value)
            elif id(value) in self._leading or is_wrapper(value) or is_copyable(value, held):
                self._enter_shell(value)

    def _enter_shell(self, value: Any) -> None:
        try:
            made = shell(value)
        except TypeError:
            if id(value) in self._leading or callable(value):
                raise
            return  # shared: it leads to no module
        self._needed = True
        self.memo[id(value)] = made
        self._objects.append((value, made))

    def _enter(self, tensor: Tensor | None) -> None:
        if tensor is not None and id(tensor) not in self.memo:
            self.memo[id(tensor)] = self.empty(tensor)

    def bind(self, twin: nn.Module) -> None:
        """Bind the functions, methods and objects of the copy to the copy."""
        if not self._needed:
            return
        self._owned |= {id(value) for value in self.memo.values()}
        for original, made in self._objects:
            own = dictionary(original)
            for name, value in attributes(original).items():
                if name in own:  # past a property of the same name
                    dictionary(made)[name] = self._copied(value)
                else:
                    object.__setattr__(made, name, self._copied(value))
        self._todo.append(twin)
        seen: set[int] = set()
        while self._todo:
            value = self._todo.pop()
            if id(value) not in seen:
                seen.add(id(value))
                self._settle(value)

    def _settle(self, value: Any) -> None:
        """Replace objects of the original that a copy still holds, in place."""
        if isinstance(value, dict):
            self._settle_dict(value)
        elif isinstance(value, list):
            value[:] = map(self._copied, value)
        elif isinstance(value, (set, collections.deque)):
            settled = list(map(self._key, value))
            value.clear()
            (value.update if isinstance(value, set) else value.extend)(settled)
        leave_out = OWN if isinstance(value, nn.Module) else ()
        for name, held in attributes(value).items():
            if name not in leave_out:
                _replace(functools.partial(_set, value), name, held, self._copied(held))

    def _settle_dict(self, value: dict[Any, Any]) -> None:
        """Replace keys and values that belong to the original, with the order kept."""
        keys = {key: self._key(key) for key in value}
        if any(made is not key for key, made in keys.items()):
            items = list(value.items())
            value.clear()
            value.update((keys[key], held) for key, held in items)
        for name, held in list(value.items()):
            _replace(value.__setitem__, name, held, self._copied(held))
        if isinstance(value, collections.defaultdict):
            value.default_factory = self._copied(value.default_factory)

    def _key(self, key: Any) -> Any:
        """Return the copy of a key or an element. The id of a module or tensor becomes the id of its copy."""
        if type(key) is not int:
            return self._copied(key)
        made = self.memo.get(key)
        return id(made) if isinstance(made, (nn.Module, Tensor)) else key

    def _copied(self, value: Any) -> Any:
        """Return the copy of a value, or the value itself if it leads to no module. Mutable copies are searched later."""
        if type(value) in ATOMS or isinstance(value, type):
            return value
        value = self.memo.get(id(value), value)
        if isinstance(value, types.FunctionType):
            return self._copied_function(value)
        if isinstance(value, FUNCTIONS):
            return self._copied_callable(value)
        if isinstance(value, (tuple, frozenset, types.MappingProxyType)):
            return self._copied_values(value)
        if id(value) in self._owned:
            if not isinstance(value, Tensor):
                self._todo.append(value)
            return value
        if isinstance(value, nn.Module):
            return self._copied_module(value)
        if isinstance(value, Tensor):
            return self._keep(value, self.empty(value))
        return self._copied_container(value) if isinstance(value, CONTAINERS) else value

    def _keep(self, value: Any, made: Any) -> Any:
        self.memo[id(value)] = made
        self._owned.add(id(made))
        return made

    def _copied_module(self, module: nn.Module) -> nn.Module:
        """Return the copy of a module outside of the model that a function leads to."""
        made = copy.deepcopy(module, self.memo)
        self._owned |= {id(value) for value in self.memo.values()}
        self._todo.append(made)
        return made

    def _copied_function(self, function: types.FunctionType) -> Any:
        """Return the function over copies of its closure, its defaults and its attributes."""
        local = has_state(function) and not is_importable(function)
        if id(function) in self._owned or not (local or id(function) in self._leading):
            return function
        cells = tuple(self._cell(cell) for cell in function.__closure__ or ())
        made = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
        made.__module__, made.__qualname__, made.__doc__ = function.__module__, function.__qualname__, function.__doc__
        self._keep(function, made)
        for cell, original in zip(cells, function.__closure__ or (), strict=True):
            self._fill(cell, original)
        if function.__defaults__ is not None:
            made.__defaults__ = tuple(map(self._copied, function.__defaults__))
        if function.__kwdefaults__ is not None:
            made.__kwdefaults__ = self._copied_named(function.__kwdefaults__)
        vars(made).update(self._copied_named(vars(function)))
        return made

    def _cell(self, cell: types.CellType) -> types.CellType:
        """Return an empty copy of a cell. Functions that share a cell share its copy."""
        return self._cells.setdefault(id(cell), types.CellType())

    def _fill(self, made: types.CellType, cell: types.CellType) -> None:
        for held in () if contents(made) else contents(cell):
            made.cell_contents = self._copied(held)

    def _copied_named(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: self._copied(value) for name, value in values.items()}

    def _copied_callable(self, value: Any) -> Any:
        """Return a method, a partial, a cached function or a weak reference over copies of its parts."""
        if isinstance(value, types.MethodType):
            function = value.__func__
            if id(function) in self._leading or not is_of_class(value):
                function = self._copied(function)
            owner = self._copied(value.__self__)
            same = function is value.__func__ and owner is value.__self__
            return value if same else types.MethodType(function, owner)
        if isinstance(value, types.BuiltinMethodType):
            owner = self._copied(value.__self__)
            return value if owner is value.__self__ else getattr(owner, value.__name__)
        if isinstance(value, weakref.ref):
            referent = value()
            made = self._copied(referent)
            if isinstance(value, weakref.KeyedRef):  # its callback removes the key from the original's dictionary
                return value if made is referent else weakref.KeyedRef(made, lambda _: None, value.key)
            return value if made is referent else type(value)(made)
        if isinstance(value, LRU_CACHE):
            function = self._copied(value.__wrapped__)
            shared = function is value.__wrapped__ and is_importable(function)
            return value if shared else self._keep(value, functools.lru_cache(**value.cache_parameters())(function))
        partial = functools.partial(
            self._copied(value.func), *map(self._copied, value.args), **self._copied_named(value.keywords)
        )
        vars(partial).update(self._copied_named(vars(value)))
        return partial

    def _copied_values(self, value: Any) -> Any:
        """Return a tuple or a frozen set over copies of its elements, or the view of a copied dictionary."""
        if isinstance(value, types.MappingProxyType):
            return self._keep(value, types.MappingProxyType(self._copied(*gc.get_referents(value))))
        made = list(map(self._copied, value))
        if all(new is held for new, held in zip(made, value, strict=True)):
            return value
        make = getattr(type(value), "_make", type(value))  # a named tuple takes its fields one by one
        return self._keep(value, make(made))

    def _copied_container(self, value: Any) -> Any:
        """Return a container of the same class over copies of its elements. Large data that leads to no module keeps them."""
        made = self._keep(value, copy.copy(value))
        if id(value) in self._leading or len(value) <= _MAX_SEARCHED:
            self._todo.append(made)
        return made


def _replace(put: Callable[[str, Any], None], name: Any, held: Any, new: Any) -> None:
    if new is not held:
        put(name, new)


def _set(value: Any, name: str, new: Any) -> None:
    """Set an attribute past the ``__setattr__`` of the class.

    ``nn.Module`` would register the value, and a frozen dataclass would refuse it.
    """
    own = dictionary(value)
    if name in own:
        own[name] = new
    else:
        object.__setattr__(value, name, new)
