"""Inputs that get their form from the code that uses them.

A user's module documents nothing. Its forward takes a tuple, a dictionary in a dictionary, an object with attributes, a list of
images, or plain tensors of unknown rank. So an argument starts as a lazy input. Access by attribute or key, unpacking and
iteration give it parts. The first layer, operator or loss that uses it turns it into a tensor of the shape that it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbitlint.model.inputs import consumers
from kbitlint.model.inputs.extents import Extent, unpacked
from kbitlint.model.inputs.input_nodes import ITEMS, RANK, Node
from kbitlint.model.inputs.recipes import LIST, MAPPING, RECORD, TUPLE, Leaf
from kbitlint.model.inputs.views import View, before, seen_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Methods that give the same numbers in the same places: the lazy input stays as it is.
_SAME = frozenset(
    [
        *("to", "float", "half", "bfloat16", "double", "type", "type_as", "contiguous", "clone", "detach", "cuda", "cpu"),
        *("requires_grad_", "pin_memory", "abs", "neg", "exp", "log", "log1p", "sqrt", "clamp", "clip"),
        *("relu", "sigmoid", "tanh"),
    ]
)
_INTEGERS = frozenset(["long", "int", "short"])
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


class LazyInput:
    """An input of which nothing is known until code uses it."""

    __slots__ = ("_state",)

    def __init__(self, node: Node, views: tuple[View, ...] = ()) -> None:
        object.__setattr__(self, "_state", (node, views))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # torch's protocol
        """Run a torch function on tensors in place of lazy inputs."""
        return settled(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        """Return what a tensor has under this name, or a part of an object."""
        node, views = self._state
        if node.tensor is not None or name.startswith("__"):
            return getattr(tensor_of(self), name) if node.tensor is not None else object.__getattribute__(self, name)
        answer = _ANSWERS.get(name)
        if answer is not None:
            return answer(self, node, name)
        if not views and not hasattr(Tensor, name):
            return LazyInput(node.part(name, RECORD))
        return getattr(tensor_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Leave out an attribute that code sets: it will set it again."""

    def __getitem__(self, key: Any) -> Any:
        """Return the entry of a dictionary, an item of a tuple, or a part of a tensor."""
        node, views = self._state
        if isinstance(key, str):
            return LazyInput(node.part(key, MAPPING))
        fresh = node.tensor is None and not views
        if fresh and isinstance(key, int) and (node.holder in (TUPLE, LIST) or node.path in _WHOLE):
            return LazyInput(node.part(str(key), node.holder or TUPLE))
        if node.tensor is not None or not View("getitem", (key,)).is_plain:
            return tensor_of(self)[key]
        if fresh and node.rank is None and isinstance(key, tuple) and Ellipsis in key:
            node.rank = RANK + 1
        return LazyInput(node, (*views, View("getitem", (key,))))

    def __iter__(self) -> Iterator[Any]:
        """Yield as many parts as the code that iterates takes."""
        node, views = self._state
        if node.tensor is not None or views:
            return iter(tensor_of(self))
        count = unpacked()
        return iter([LazyInput(part) for part in node.parts(count or ITEMS, TUPLE if count else LIST)])

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

    def __neg__(self) -> LazyInput:
        """Return the input: its form is the same."""
        return self

    def __invert__(self) -> Any:
        """Return the input, which holds booleans."""
        return self.bool()

    def __hash__(self) -> int:
        """Return the identity."""
        return id(self)


def node_of(lazy: LazyInput) -> Node:
    """Return what is known about a lazy input."""
    return lazy._state[0]  # type: ignore[no-any-return]  # set in its constructor  # noqa: SLF001  # the state of an object whose attributes are those of an input


def tensor_of(lazy: LazyInput, leaf: Leaf | None = None) -> Tensor:
    """Return the tensor that a lazy input becomes where code needs such a leaf, with its views."""
    node, views = lazy._state  # noqa: SLF001  # the state of an object whose attributes are those of an input
    if node.tensor is None:
        shape = leaf.shape if leaf is not None else None
        for view in reversed(views):
            shape = before(view, shape, node.session.batch)
        if shape is not None and node.session.flat and len(shape) > 1 and shape[0] == node.session.batch:
            shape = shape[1:]
        ranked = leaf if leaf is not None else Leaf(node.kind or "float", ())
        node.become(None if shape is None else Leaf(ranked.kind, shape, ranked.below))
    made = node.tensor
    for view in views:
        made = seen_through(view, made)
    return made


def _extent(lazy: LazyInput, node: Node, name: str) -> Any:
    found = Extent(node, lambda: tensor_of(lazy), known=bool(lazy._state[1]))  # noqa: SLF001  # see above
    return (lambda *at: found[at[0]] if at else found) if name == "size" else found


def _quality(_: LazyInput, node: Node, name: str) -> Any:
    dtype = {"long": torch.long, "bool": torch.bool}.get(node.cast or node.kind, node.session.dtype)
    return {"dtype": dtype, "device": torch.device("cpu"), "layout": torch.strided}.get(name, False)


def _same(lazy: LazyInput, _: Node, __: str) -> Any:
    return lambda *_, **__: lazy


def _cast(lazy: LazyInput, node: Node, name: str) -> Any:
    node.cast = "long" if name in _INTEGERS else "bool"
    return lambda *_, **__: lazy


def _view(lazy: LazyInput, node: Node, name: str) -> Any:
    return lambda *how: LazyInput(node, (*lazy._state[1], View(name, how)))  # noqa: SLF001  # see above


def _entry(_: LazyInput, node: Node, __: str) -> Any:
    return lambda key, *_: LazyInput(node.part(key, MAPPING))


def _entries(_: LazyInput, node: Node, name: str) -> Any:
    """Return the entries that were read so far, in this run or the ones before it: no code tells all of them."""
    session = node.session
    session.copied.append(node.path)
    for key in session.entries.get(node.path, ()):
        node.part(key, MAPPING)
    return lambda: [(key, LazyInput(item)) if name == "items" else key for key, item in node.items.items()]


_ANSWERS: dict[str, Callable[[LazyInput, Node, str], Any]] = {
    **dict.fromkeys(("shape", "size"), _extent),
    **dict.fromkeys(("dtype", "device", "requires_grad", "is_cuda", "layout"), _quality),
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys((*_INTEGERS, "bool", "logical_not"), _cast),
    **dict.fromkeys(("unsqueeze", "squeeze", "transpose", "permute", "t", "swapaxes"), _view),
    **dict.fromkeys(("get", "pop"), _entry),
    **dict.fromkeys(("keys", "items"), _entries),
}


def settled(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Run a function of torch with a tensor in place of each lazy input."""
    name = getattr(func, "__name__", "")
    name = _FUNCTIONS.get(name, name)

    def of(value: Any, place: int | str) -> Any:
        if isinstance(value, LazyInput):
            session = node_of(value).session
            if name == "tensor" and node_of(value).tensor is None:
                return int(value)
            return tensor_of(value, consumers.of_call(consumers.Call(name, args, named, place, session.batch, session.steps)))
        if isinstance(value, (list, tuple)) and any(isinstance(item, LazyInput) for item in value):
            return type(value)(of(item, place) for item in value)
        return value

    given = [of(value, place) for place, value in enumerate(args)]
    return func(*given, **{key: of(value, key) for key, value in named.items()})


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
