"""Tensors of a traced step that are zero in every step: a frozen tensor of zeros or the number 0 multiplies them.

A product with zeros is zero, and so is each gradient that passes through it. Backward operators are products as well, so the
same propagation tells which gradients stay zero for ever. A trainable parameter of zeros is such a tensor only if its own
gradient is zero too. So a fresh ``lora_B`` is no fault: it moves. Two factors of zeros hold each other there, and scales that a
cast has rounded to zero hold what they multiply.

Operators such as ``round`` have a derivative of zero everywhere, so autograd makes zeros of each gradient there.

Zeros are known by their storage: a view shares it, and a write ends it. Everything else counts as unknown, so a zero that is
reported is one.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

aten = torch.ops.aten

#: Operators whose result is zero if any operand is.
_PRODUCTS = frozenset(["mul", "mm", "bmm", "dot", "mv"])
#: Operators whose result is zero if each of their tensors is.
_SUMS = frozenset(["add", "sub", "cat", "stack", "maximum", "minimum"])
#: Operators of a sum and a product: the first operand, and either of the next two.
_SUM_AND_PRODUCT = frozenset(["addmm", "baddbmm", "addmv"])
#: Operators whose result is zero if their first operand is: casts, copies, choices of elements, and functions with f(0) = 0.
_FOLLOWING = frozenset(
    [
        *("_to_copy", "clone", "neg", "abs", "sum", "mean", "div", "index", "index_select", "gather", "embedding", "repeat"),
        *("tanh", "sin", "sqrt", "relu", "gelu", "silu", "_unsafe_view", "flip", "roll", "masked_select", "tril", "triu"),
        *("empty_like", "new_empty", "new_empty_strided"),  # of stubs, and until something is written into them
    ]
)
#: Operators that place or add values into another tensor. The result is zero if both are.
_PLACING = frozenset(["index_put", "_index_put_impl", "index_add", "scatter_add", "slice_scatter", "select_scatter"])
#: Operators that make zeros, which gradients are placed into. These alone prove nothing about a model.
_MAKING = frozenset(["zeros", "zeros_like", "new_zeros"])
_MADE = "zeros that the step makes"
#: Begins the path of a trainable parameter that holds zeros when the step starts.
_START = "\1"
#: Operators whose derivative is zero wherever it exists.
FLAT = frozenset(["round", "floor", "ceil", "trunc", "sign", "sgn"])
#: Separates the path of a module and the operator in it that is the cause.
_IN = "\0"
#: In place of that operator: the parameter itself is held at zero.
HELD = "held"
#: Operators that are linear in their first operand, a gradient, end like this.
_BACKWARD = ("_backward", "_backward_data")
#: The exceptions: the first operand of these is no gradient.
_OTHER_BACKWARD = frozenset(["linear_backward", "_cudnn_rnn_backward", "mkldnn_rnn_layer_backward", "miopen_rnn_backward"])
#: Operators that make NaN of NaN, where the result is one number.
_KEEPING_NAN = frozenset(["mul", "add", "sub", "div", "sum", "mean", "_to_copy", "clone", "neg", "stack"])
_MEANS = frozenset([aten.mean.default, aten.mean.dim])
_FLAT = frozenset(getattr(getattr(aten, name), kind) for name in FLAT for kind in getattr(aten, name).overloads())
_TIMES = frozenset([aten.mul.Tensor, aten.mul.Scalar])


def parted(cause: str) -> tuple[str, str]:
    """Return the path and the operator of a cause. The operator is empty if the cause is a frozen tensor."""
    path, _, operator = cause.partition(_IN)
    return path, operator


class Zeros:
    """The tensors of one step that are known to be zero, and those that are NaN, each with its cause."""

    def __init__(self) -> None:
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._causes: dict[int, str] = {}
        self._undefined: set[int] = set()
        self._sources: dict[int, str] = {}
        self._moving: set[str] = set()
        self._starts: set[str] = set()
        self.starts_hold = False
        """Whether the trainable parameters of zeros keep their zeros, so that they are causes."""
        self._places: dict[tuple[str, tuple[int, ...]], str] = {}
        self.where: Callable[[], str] = lambda: ""

    def add(self, tensor: Tensor, path: str) -> None:
        """Record that a frozen tensor of the model, at a path, holds zeros."""
        self._sources[storage_key(tensor)] = path
        self._causes[self._watch(tensor)] = path

    def add_start(self, tensor: Tensor, path: str) -> None:
        """Record that a trainable tensor of the model, at a path, holds zeros when the step starts."""
        self._starts.add(path)
        self.add(tensor, f"{_START}{path}")

    @property
    def starts(self) -> frozenset[str]:
        """Return the paths of the trainable tensors that hold zeros, without those that the step writes."""
        return frozenset(path for path in self._starts if f"{_START}{path}" not in self._moving)

    def is_zero(self, value: Any) -> bool:
        """Return whether a value is zero for as long as the trainable tensors of zeros are."""
        return self._known(value) not in ("", _MADE)

    def cause(self, value: Any) -> str:
        """Return what makes a value zero in every step, or an empty string. ``parted`` has the path and the operator."""
        known = self._known(value)
        if known.startswith(_START):
            return f"{known[1:]}{_IN}{HELD}" if self.starts_hold else ""
        return "" if known == _MADE else known

    def _known(self, value: Any) -> str:
        dense = isinstance(value, Tensor) and value.layout is torch.strided  # no sparse tensor has a storage to be known by
        known = self._causes.get(storage_key(value), "") if dense else ""
        return "" if known in self._moving else known

    def is_undefined(self, tensor: Tensor) -> bool:
        """Return whether a tensor is NaN, as the mean of no elements is."""
        return bool(self._undefined) and storage_key(tensor) in self._undefined

    def see(self, func: Any, args: Sequence[Any], result: Any) -> None:
        """Record what an operator makes of known values."""
        if func in _FLAT:
            self._places.setdefault(("zeros_like", tuple(args[0].shape)), f"{self.where()}{_IN}{func.overloadpacket.__name__}")
        elif func in _TIMES and type(args[1]) in (int, float) and args[1] == 0:
            self._see_made(result, self._places.setdefault(("mul", tuple(args[0].shape)), f"{self.where()}{_IN}mul"))
        elif func is aten.zeros_like.default and self._places and not self.where():  # autograd, between modules
            self._see_made(result, self._places.get(("zeros_like", tuple(args[0].shape)), ""))
        if self._causes:
            self._see_zeros(func, args, result)
        if self._undefined or func in _MEANS:
            self._see_undefined(func, args, result)

    def _see_zeros(self, func: Any, args: Sequence[Any], result: Any) -> None:
        name, written = func.overloadpacket.__name__, _writes_at(func)
        for position in written:
            if position < len(args) and isinstance(args[position], Tensor):
                self._see_write(args[position], name, args)
        if written:  # a write into a part of a tensor does not make the whole one zero
            return
        self._see_made(result, self._follow(name, args))

    def _see_made(self, result: Any, cause: str) -> None:
        """Record the cause for which the result of an operator is zero, unless it is known already."""
        for made in (result if isinstance(result, (tuple, list)) else (result,)) if cause else ():
            if isinstance(made, Tensor) and made.layout is torch.strided and storage_key(made) not in self._causes:
                self._causes[self._watch(made)] = cause

    def _follow(self, name: str, args: Sequence[Any]) -> str:
        """Return the cause for which the result of an operator is zero, or an empty string."""
        if not args:
            return ""
        if name in _PRODUCTS:
            return self._any(args[:2])
        if name in _SUMS:
            return self._every(args[0] if isinstance(args[0], (list, tuple)) else args[:2])
        if name in _SUM_AND_PRODUCT:
            product = self._any(args[1:3])
            return product if self._known(args[0]) else ""
        if name in _FOLLOWING or (name.endswith(_BACKWARD) and name not in _OTHER_BACKWARD):
            return self._known(args[0])
        if name in _PLACING:
            return self._every([value for value in args if isinstance(value, Tensor) and value.is_floating_point()])
        return _MADE if name in _MAKING else ""

    def _any(self, operands: Sequence[Any]) -> str:
        return max(map(self._known, operands), key=_weight, default="")

    def _every(self, operands: Sequence[Any]) -> str:
        causes = [self._known(operand) for operand in operands]
        if not causes or not all(causes):
            return ""
        return next((cause for cause in causes if cause.startswith(_START)), None) or max(causes, key=_weight)

    def _see_write(self, written: Tensor, name: str, args: Sequence[Any]) -> None:
        """Forget a tensor that an operator writes, unless it writes zeros. A frozen tensor that is written moves."""
        key = storage_key(written)
        if key not in self._causes and name == "copy_" and _is_whole(written):
            self._see_made(written, self._known(args[1]))
            return
        if key not in self._causes or name == "zero_":
            return
        stays = self._known(args[1]) if name == "copy_" else self._follow(name.removesuffix("_"), args)
        if stays:
            self._causes[key] = stays if stays.startswith(_START) else max(self._causes[key], stays, key=_weight)
            return
        del self._causes[key]
        if key in self._sources:
            self._moving.add(self._sources[key])

    def _see_undefined(self, func: Any, args: Sequence[Any], result: Any) -> None:
        if not isinstance(result, Tensor) or result.numel() != 1:
            return
        name = func.overloadpacket.__name__
        tensors = [value for value in args if isinstance(value, Tensor)]
        of_nothing = func in _MEANS and not tensors[0].numel()
        if of_nothing or (name in _KEEPING_NAN and any(map(self.is_undefined, tensors))):
            self._undefined.add(self._watch(result))

    def _watch(self, tensor: Tensor) -> int:
        """Return the key of a tensor's storage, and forget it with the storage. A later one may have its address."""
        storage, key = tensor.untyped_storage(), storage_key(tensor)
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, lambda _: self._forget(key))
        return key

    def _forget(self, key: int) -> None:
        self._alive.pop(key, None)
        self._causes.pop(key, None)
        self._undefined.discard(key)


def _weight(cause: str) -> int:
    """Return how much a cause tells: nothing, a start of zeros, zeros that the step makes, or a frozen tensor."""
    return 1 if cause.startswith(_START) else 2 * (cause != "") + (cause not in ("", _MADE))


def _is_whole(tensor: Tensor) -> bool:
    """Return whether a tensor covers its storage, so that a write into it leaves nothing of what was there."""
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def storage_key(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage, or 0 for a tensor without one."""
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  # the only identity of a storage
    except (RuntimeError, NotImplementedError):  # sparse tensors and wrapper subclasses have no storage
        return 0


@functools.lru_cache(maxsize=4096)
def _writes_at(func: Any) -> tuple[int, ...]:
    """Return the positions of the arguments that an operator writes."""
    arguments = func._schema.arguments  # noqa: SLF001  # torch has no public name for it
    return tuple(at for at, one in enumerate(arguments) if one.alias_info is not None and one.alias_info.is_write)
