"""Tensors of integers that a file makes itself: token ids and labels, with what is sure of their values."""

from __future__ import annotations

import ast
import dataclasses

from kbitlint.facts.values import UNKNOWN
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.batches import whole
from kbitlint.source.interpreter.objects import Constant, Object, Record, Sequence, Tensor

#: functions of torch that fill a tensor with one value; None where an argument holds it
_FILLS = {"zeros": 0, "ones": 1, "full": None, "zeros_like": 0, "ones_like": 1, "full_like": None}
#: methods that return a tensor with the same values
_SAME = frozenset(
    {"clone", "to", "long", "int", "cuda", "cpu", "contiguous", "detach", "tolist", "numpy", "repeat", "expand", "view"}
    | {"reshape", "unsqueeze", "squeeze", "flatten", "pin_memory"}
)
#: the chance that all random tokens are small enough, below which one that is too large counts as certain
_RARE = 1e-4
#: Number of values that take as long to read as one step.
_CHEAP = 16


class Tensors(Interpreter):
    """The part of the interpreter that follows tensors of integers."""

    def tensor_call(self, name: str, arguments: Record) -> Object | None:
        """Return the tensor that a function of torch makes; None for every other function."""
        first = arguments.get("0" if "0" in arguments.items else "data" if name == "tensor" else "input")
        if name.startswith("Dataset."):
            return _dataset(name, arguments.get("0" if "0" in arguments.items else "mapping"))
        if name == "randint":
            return self._random(arguments)
        if name in ("tensor", "LongTensor"):
            return self._listed(first)
        if name not in _FILLS:
            return None
        held = _FILLS[name]
        given = arguments.get("fill_value" if "fill_value" in arguments.items else "1") if held is None else Constant(held)
        value = whole(given)
        if value is None:
            return UNKNOWN
        shape = first.shape if name.endswith("_like") and isinstance(first, Tensor) else None
        return Tensor(value, value, value, shape)

    def _random(self, arguments: Record) -> Object:
        """Return the tensor that ``torch.randint`` makes: one bound before the size, or two."""
        size = arguments.get("size") if "size" in arguments.items else arguments.get("2" if "2" in arguments.items else "1")
        given = [arguments.get(name) for name in ("0", "1") if name in arguments.items]
        bounds = [number for one in given if (number := whole(one)) is not None]
        low, high = (bounds[0], bounds[1]) if len(bounds) > 1 else (0, bounds[0]) if bounds else (None, None)
        for name in ("low", "high"):
            if name in arguments.items:
                number = whole(arguments.get(name))
                low, high = (number, high) if name == "low" else (low, number)
        if low is None or high is None or high <= low:
            return UNKNOWN
        shape = tuple(map(whole, size.values)) if isinstance(size, Sequence) else None
        count = 1
        for length in shape or ():
            count *= length or 1
        likely = low + int((high - low) * _RARE ** (1 / max(count, 1))) - 1
        return Tensor(low, high - 1, max(likely, low), shape)

    def _listed(self, value: Object) -> Object:
        """Return the tensor of a list of whole numbers, or of lists of them."""
        numbers, todo = [], [value]
        while todo:
            one = todo.pop()
            if isinstance(one, Sequence):
                self.effort.spend(len(one.values) // _CHEAP)
                todo += one.values
            else:
                numbers.append(whole(one))
        known = [number for number in numbers if number is not None]
        if not known or len(known) < len(numbers):
            return UNKNOWN
        return Tensor(min(known), max(known), max(known), None)

    def tensor_method(self, tensor: Tensor, name: str, arguments: Record) -> Object:
        """Return what a method of a tensor returns."""
        if name in ("fill_", "zero_"):
            value = 0 if name == "zero_" else whole(arguments.get("0"))
            self._fill(tensor, value, everything=True)
            return tensor
        if name.endswith("_") and not name.startswith("_"):
            tensor.low = tensor.high = tensor.peak = None
            return tensor
        if name not in _SAME:
            return UNKNOWN
        shape = tensor.shape if name not in ("repeat", "expand", "view", "reshape", "unsqueeze", "squeeze", "flatten") else None
        return dataclasses.replace(tensor, shape=shape)

    def set_item(self, tensor: Tensor, key: ast.expr, value: Object) -> None:
        """Apply ``tensor[key] = value``."""
        everything = (isinstance(key, ast.Slice) and key.lower is None and key.upper is None) or (
            isinstance(key, ast.Constant) and key.value is ...
        )
        self._fill(tensor, whole(value), everything=everything, sure=_hits(key))

    @staticmethod
    def _fill(tensor: Tensor, value: int | None, *, everything: bool, sure: bool = True) -> None:
        if value is None:
            tensor.low = tensor.high = tensor.peak = None
        elif everything:
            tensor.low = tensor.high = tensor.peak = value
        else:
            if tensor.low is not None and tensor.high is not None:
                tensor.low, tensor.high = min(tensor.low, value), max(tensor.high, value)
            if sure and tensor.peak is not None:
                tensor.peak = max(tensor.peak, value)
            elif sure:
                tensor.peak = value


def _hits(key: ast.expr) -> bool:
    """Return whether an index certainly selects an element: numbers and slices do, a mask may not."""
    parts = key.elts if isinstance(key, ast.Tuple) else [key]
    return all(
        isinstance(part, ast.Constant)
        or (isinstance(part, ast.UnaryOp) and isinstance(part.operand, ast.Constant))
        or (isinstance(part, ast.Slice) and part.lower is None and part.upper is None)
        for part in parts
    )


def _dataset(name: str, given: Object) -> Object:
    """Return the data that ``Dataset.from_dict`` or ``Dataset.from_list`` makes, by its columns."""
    made = given if name.endswith("from_dict") else _columns(given) if name.endswith("from_list") else None
    return dataclasses.replace(made, callee="datasets.Dataset") if isinstance(made, Record) else UNKNOWN


def _columns(rows: Object) -> Record | None:
    """Return the columns of a list of equal dicts, which ``Dataset.from_list`` takes; None for every other list."""
    first = rows.values[0] if isinstance(rows, Sequence) and rows.values else None
    if not isinstance(first, Record) or not isinstance(rows, Sequence) or any(one is not first for one in rows.values):
        return None
    return first
