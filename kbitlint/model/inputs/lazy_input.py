"""Inputs that get their form from the code that uses them.

A user's module documents nothing: its forward takes a tuple, a dictionary in a dictionary, an object with attributes, a list of
images, or plain tensors of unknown rank. So an argument starts as a lazy input. Access by attribute or key, unpacking and
iteration give it parts. The first layer, operator or loss that uses it turns it into a tensor of the shape that this code takes.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from kbitlint.model.inputs import consumers
from kbitlint.model.inputs.interface import is_integer_name
from kbitlint.model.inputs.recipes import LIST, MAPPING, RECORD, TUPLE, Holder, Leaf, Number, filled
from kbitlint.model.inputs.views import View, before, seen_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from kbitlint.model.inputs.plan import Plan
    from kbitlint.model.inputs.recipes import Recipe

#: Methods that give the same numbers in the same places: the lazy input stays as it is.
_SAME = frozenset(
    [
        *("to", "float", "half", "bfloat16", "double", "type", "type_as", "contiguous", "clone", "detach", "cuda", "cpu"),
        *("requires_grad_", "pin_memory", "abs", "neg", "exp", "log", "sqrt", "clamp", "clip", "relu", "sigmoid", "tanh", "log1p"),
    ]
)
_INTEGERS, _BOOLEANS = frozenset(["long", "int", "short"]), frozenset(["bool", "logical_not"])
_VIEWS = frozenset(["unsqueeze", "squeeze", "transpose", "permute", "t", "swapaxes"])
#: Arguments that hold a whole batch, whose parts are read by number.
_WHOLE = frozenset(["batch", "inputs", "data", "samples", "sample", "example", "examples", "args", "features"])
_ARITHMETIC = ("add", "sub", "mul", "truediv", "pow", "matmul", "mod", "floordiv", "and", "or", "xor")
_COMPARISONS = frozenset(f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge"))
#: Names of methods -> those of the functions that they call.
_FUNCTIONS = {
    **{f"__{start}{name}__": name for start in ("", "r", "i") for name in ("add", "sub", "mul", "pow", "matmul", "and", "or")},
    **{f"__{start}truediv__": "div" for start in ("", "r", "i")},
    **{name: name.strip("_") for name in _COMPARISONS},
}
#: Items of a list, and parts with the same name inside each other, as trees have them.
_ITEMS, _DEPTH = 2, 2
_RANK = 2


class Session:
    """The lazy inputs of one run."""

    def __init__(self, plan: Plan, batch: int, steps: int, dtype: torch.dtype) -> None:
        self.plan, self.batch, self.steps, self.dtype = plan, batch, steps, dtype
        self.roots: dict[str, LazyInput] = {}

    def input(self, path: str) -> LazyInput:
        """Return a lazy input for an argument."""
        self.roots[path] = LazyInput(_Node(self, path))
        return self.roots[path]

    def several(self, path: str, count: int) -> tuple[LazyInput, ...]:
        """Return lazy inputs for ``*path``."""
        return tuple(node_of(self.input(path)).parts(count, TUPLE))

    def recipes(self) -> dict[str, Recipe]:
        """Return what the run has found out about each argument."""
        return {name: node_of(lazy).recipe() for name, lazy in self.roots.items()}


class _Node:
    """What is known about one lazy input."""

    def __init__(self, session: Session, path: str) -> None:
        self.session, self.path = session, path
        self.kind = "long" if is_integer_name(path.rpartition(".")[2]) else ""
        self.rank: int | None = None
        self.leaf: Leaf | None = None
        self.tensor: Tensor | None = None
        self.number: int | None = None
        self.holder = ""
        self.items: dict[str, LazyInput] = {}

    def part(self, name: str, holder: str) -> LazyInput:
        """Return a part, which is made when it is first asked for."""
        self.holder = holder if self.holder in ("", TUPLE, LIST) else self.holder
        if name not in self.items:
            self.items[name] = LazyInput(_Node(self.session, f"{self.path}.{name}"))
        return self.items[name]

    def parts(self, count: int, holder: str) -> list[LazyInput]:
        """Return numbered parts. Parts of a tree end at a small depth."""
        names = [name for name in self.path.split(".") if not name.isdigit()]
        if holder == LIST and len(names) - len(set(names)) >= _DEPTH - 1:
            self.holder = LIST
            return []
        return [self.part(str(number), holder) for number in range(count)]

    def become(self, leaf: Leaf | None) -> Tensor:
        """Return the tensor of this input. It gets the form of a leaf, unless a plan or its use has given it another one."""
        if self.tensor is None:
            session = self.session
            found = leaf or self._usual()
            kind = session.plan.kinds.get(self.path) or (found.kind if leaf else self.kind or found.kind)
            shape = session.plan.shapes.get(self.path) or self._ranked(found.shape)
            self.leaf = Leaf(kind, shape, found.below)
            self.tensor = filled(self.path, self.leaf, session.dtype)
            if self.tensor.is_floating_point():
                self.tensor = self.tensor.to("meta")
        return self.tensor

    def _usual(self) -> Leaf:
        sizes = (self.session.batch, self.session.steps, 8, consumers.EDGE, consumers.EDGE)
        return Leaf(self.kind or "float", sizes[: self.rank or _RANK])

    def _ranked(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape with the number of dimensions that code has asked for."""
        rank = self.rank or len(shape)
        if rank > len(shape):
            return (*shape[:-1], *(4 for _ in range(rank - len(shape))), *shape[-1:])
        return (*shape[: rank - 1], shape[-1]) if rank < len(shape) and rank else shape

    def recipe(self) -> Recipe:
        """Return what the run has found out."""
        if self.leaf is not None:
            return self.leaf
        if self.holder:
            return Holder(self.holder, tuple((name, node_of(item).recipe()) for name, item in self.items.items()))
        return Leaf("long", ()) if self.number is None else Number(self.number)


class LazyInput:
    """An input of which nothing is known until code uses it."""

    def __init__(self, node: _Node, views: tuple[View, ...] = ()) -> None:
        object.__setattr__(self, "_state", (node, views))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG003  # torch's protocol
        """Run a torch function on tensors in place of lazy inputs."""
        return settled(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        """Return what a tensor has under this name, or a part of an object."""
        node, views = self._state
        if node.tensor is not None:
            return getattr(tensor_of(self), name)
        if name == "shape":
            return _Extent(self)
        if name in ("dtype", "device", "requires_grad", "is_cuda", "layout"):
            return _quality(node, name)
        if name in _SAME or name in _INTEGERS or name in _BOOLEANS:
            node.kind = "long" if name in _INTEGERS else "bool" if name in _BOOLEANS else node.kind
            return lambda *_, **__: self
        if name in _VIEWS:
            return lambda *how: LazyInput(node, (*views, View(name, how)))
        if name == "size":
            return lambda *at: _Extent(self)[at[0]] if at else _Extent(self)
        if name in ("get", "pop"):
            return lambda key, *_: node.part(key, MAPPING)
        if name in ("keys", "items"):
            return lambda: [(key, item) if name == "items" else key for key, item in node.items.items()]
        if name.startswith("__"):
            raise AttributeError(name)
        if not views and not hasattr(Tensor, name):
            return node.part(name, RECORD)
        return getattr(tensor_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep an attribute that code sets on an object."""
        self._state[0].part(name, RECORD)
        self._state[0].items[name] = value

    def __getitem__(self, key: Any) -> Any:
        """Return the entry of a dictionary, an item of a tuple, or a part of a tensor."""
        node, views = self._state
        if isinstance(key, str):
            return node.part(key, MAPPING)
        if isinstance(key, int) and not views and node.tensor is None:
            if node.holder in (TUPLE, LIST) or node.path in _WHOLE:
                return node.part(str(key), node.holder or TUPLE)
        if node.tensor is None and View("getitem", (key,)).is_plain:
            return LazyInput(node, (*views, View("getitem", (key,))))
        return tensor_of(self)[key]

    def __iter__(self) -> Iterator[Any]:
        """Yield as many parts as the code that iterates takes."""
        node, views = self._state
        if node.tensor is not None or views:
            return iter(tensor_of(self))
        count = _unpacked()
        return iter(node.parts(count or _ITEMS, TUPLE if count else LIST))

    def __contains__(self, key: object) -> bool:
        """Return whether a dictionary has an entry that was read before."""
        return key in self._state[0].items

    def __len__(self) -> int:
        """Return the number of samples, or of parts."""
        node = self._state[0]
        if node.tensor is not None:
            return len(tensor_of(self))
        return len(node.items) if node.holder in (TUPLE, LIST) else node.session.batch

    def __bool__(self) -> bool:
        """Return True: an input is there."""
        return True

    def __index__(self) -> int:
        """Return a number of Python's."""
        node, views = self._state
        if node.tensor is not None or views:
            return int(tensor_of(self))
        node.number = 1
        return node.number

    __int__ = __index__

    def __float__(self) -> float:
        """Return a number of Python's."""
        return float(self.__index__())

    def __hash__(self) -> int:
        """Return the identity."""
        return id(self)


def node_of(lazy: Any) -> _Node:
    """Return what is known about a lazy input."""
    return lazy._state[0] if isinstance(lazy, LazyInput) else _Constant(lazy)  # type: ignore[return-value]  # both have a recipe  # noqa: SLF001


class _Constant:
    """A value that the code itself has put into an input."""

    def __init__(self, _: object) -> None:
        pass

    def recipe(self) -> Recipe:
        """Return a number, which the code will replace again."""
        return Number(0)


def tensor_of(lazy: LazyInput, leaf: Leaf | None = None) -> Tensor:
    """Return the tensor that a lazy input becomes where code needs such a leaf, with its views."""
    node, views = lazy._state  # noqa: SLF001  # the state of an object whose attributes are those of an input
    if node.tensor is None:
        shape = leaf.shape if leaf is not None else None
        for view in reversed(views):
            shape = before(view, shape, node.session.batch)
        ranked = leaf if leaf is not None else Leaf(node.kind or "float", ())
        node.become(None if shape is None else Leaf(ranked.kind, shape, ranked.below))
    made = node.tensor
    for view in views:
        made = seen_through(view, made)
    return made


class _Extent:
    """The sizes of a lazy input. Unpacking tells how many it has."""

    def __init__(self, lazy: LazyInput) -> None:
        self.lazy = lazy

    def __iter__(self) -> Iterator[int]:
        node, views = self.lazy._state  # noqa: SLF001  # see above
        count = _unpacked()
        if count and not views and node.tensor is None:
            node.rank = count
        return iter(tensor_of(self.lazy).shape)

    def __getitem__(self, at: Any) -> Any:
        node, views = self.lazy._state  # noqa: SLF001  # see above
        if at == 0 and not views and node.tensor is None:
            return node.session.batch
        if isinstance(at, int) and at > 0 and node.rank is None and not views:
            node.rank = max(at + 1, _RANK) if at > 1 else None
        return tensor_of(self.lazy).shape[at]

    def __len__(self) -> int:
        return len(tensor_of(self.lazy).shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(tensor_of(self.lazy).shape, name)


def _quality(node: _Node, name: str) -> Any:
    if name == "dtype":
        return {"long": torch.long, "bool": torch.bool}.get(node.kind, node.session.dtype)
    return {"device": torch.device("cpu"), "layout": torch.strided}.get(name, False)


def _unpacked() -> int | None:
    """Return how many values the code that asks for an iterator unpacks. None if it loops."""
    frame = sys._getframe(2)  # noqa: SLF001  # the instruction tells, and nothing else does
    found = _instructions(frame.f_code).get(frame.f_lasti)
    return found[1] if found is not None and found[0] == "UNPACK_SEQUENCE" else None


@functools.lru_cache(maxsize=256)
def _instructions(code: Any) -> dict[int, tuple[str, int | None]]:
    return {one.offset: (one.opname, one.arg) for one in dis.get_instructions(code)}


def settled(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Run a function of torch with a tensor in place of each lazy input."""
    name = getattr(func, "__name__", "")
    name = _FUNCTIONS.get(name, name)

    def of(value: Any, place: int | str) -> Any:
        if isinstance(value, LazyInput):
            session = node_of(value).session
            return tensor_of(value, consumers.of_call(consumers.Call(name, args, named, place, session.batch, session.steps)))
        if isinstance(value, (list, tuple)) and any(isinstance(item, LazyInput) for item in value):
            return type(value)(of(item, place) for item in value)
        return value

    given = [of(value, place) for place, value in enumerate(args)]
    return func(*given, **{key: of(value, key) for key, value in named.items()})


class Settling(TorchFunctionMode):
    """A mode that settles lazy inputs before any other mode sees them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002, D105  # torch's protocol
        return settled(func, args, kwargs or {})


@contextlib.contextmanager
def settling() -> Iterator[None]:
    """Settle lazy inputs inside the ``with`` statement before layers and other modes see them."""
    handle = register_module_forward_pre_hook(_settled_for)
    try:
        with Settling():
            yield
    finally:
        handle.remove()


def _settled_for(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the arguments of a module with lazy inputs that have become what it takes."""
    sessions = [node_of(value).session for value in given if isinstance(value, LazyInput)]
    leaf = consumers.of_module(module, sessions[0].batch, sessions[0].steps) if sessions else None
    return None if leaf is None else tuple(tensor_of(value, leaf) if isinstance(value, LazyInput) else value for value in given)


def _operator(name: str) -> Callable[[LazyInput, Any], Any]:
    """Return the method of an operator. A number beside a lazy input leaves its form open."""

    def run(self: LazyInput, other: Any) -> Any:
        if isinstance(other, (int, float)) and node_of(self).tensor is None and name not in _COMPARISONS:
            return self
        return settled(getattr(Tensor, name), (self, other), {})

    return run


for _name in (*(f"__{one}__" for one in _ARITHMETIC), *_COMPARISONS):
    setattr(LazyInput, _name, _operator(_name))
    if (_reflected := f"__r{_name.strip('_')}__") in vars(torch.Tensor):
        setattr(LazyInput, _reflected, _operator(_reflected))
for _name in ("__neg__", "__invert__"):
    setattr(LazyInput, _name, lambda self: self)
