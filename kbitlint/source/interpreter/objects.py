"""What stands behind the names of a file while one path through it is followed."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kbitlint.facts.values import UNKNOWN, Argument, Call, Span, Style, Symbol, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.model_state import ModelState


class TooLong(Exception):  # noqa: N818  # not an error: the path is left where it is
    """A path that takes more steps than any training script."""


@dataclass(slots=True)
class Effort:
    """What a path may still cost, in steps: a statement, an expression, or as much work on values."""

    left: int

    def spend(self, steps: int = 1) -> None:
        """Take steps off. Raises TooLong where none are left."""
        self.left -= steps
        if self.left < 0:
            raise TooLong


@dataclass(slots=True)
class Entry:
    """A value under a name, with where it is written."""

    value: Object
    span: Span
    whole: Span


@dataclass(slots=True, eq=False)
class Record:
    """Named values: a dict, or the arguments that made an instance."""

    callee: str = "dict"
    items: dict[str, Entry] = field(default_factory=dict)
    complete: bool = True
    span: Span = field(default_factory=lambda: Span(0, 0, 1))
    style: Style = Style.CALL
    tail: int = 0
    of: Class | None = None
    """The class of the file that it is an instance of."""

    def get(self, name: str) -> Object:
        """The value of this name, UNKNOWN where it is not given."""
        given = self.items.get(name)
        return UNKNOWN if given is None else given.value

    def frozen(self, effort: Effort, depth: int = 0) -> Call:
        """The facts. Raises TooLong where they are too many."""
        effort.spend(len(self.items) // _CHEAP)
        arguments = tuple(
            Argument(name, frozen(given.value, effort, depth + 1), given.span, given.whole)
            for name, given in self.items.items()
        )
        return Call(self.callee, self.span, arguments, self.complete, self.style, self.tail)


@dataclass(slots=True, eq=False)
class TrackedModel:
    """A model, however many names and wrappers it has."""

    number: int
    state: ModelState
    outputs: int = 0
    handed: frozenset[bool] = frozenset()
    """Each time its parameters were given to anything, an optimizer or what makes one: whether adapters were attached."""
    optimizer: Call | None = None
    """The call that made an optimizer of them while none were."""

    def hand_out(self) -> None:
        """Something is given its parameters as they are now."""
        self.handed |= {self.state.adapters is not None}


@dataclass(slots=True, eq=False)
class Parameters:
    """What ``model.parameters()`` gives, or one of them."""

    net: TrackedModel
    filtered: bool = False


@dataclass(slots=True, eq=False)
class Submodule:
    """Some module or parameter of a model; nothing tells which."""

    net: TrackedModel


@dataclass(slots=True, eq=False)
class Output:
    """What a model returned, or a loss made from it."""

    net: TrackedModel


@dataclass(slots=True, eq=False)
class Function:
    """A function of the file."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope
    receiver: Record | Class | None = None
    of: Class | None = None
    """The class whose body it stands in."""


@dataclass(slots=True, eq=False)
class Class:
    """A class of the file."""

    node: ast.ClassDef
    scope: Scope
    base: str = ""
    """The known class that it extends."""
    extends: Class | None = None
    """The class of the file that it extends."""
    found: dict[str, tuple[Class, ast.FunctionDef | ast.AsyncFunctionDef] | None] = field(default_factory=dict)
    """The methods that it was asked for, and its own."""
    looked: bool = False
    """Whether ``found`` holds its own."""

    def method(self, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """A method by name, its own or inherited from a class of the file."""
        found = self.holder(name)
        return None if found is None else found[1]

    def holder(self, name: str) -> tuple[Class, ast.FunctionDef | ast.AsyncFunctionDef] | None:
        """The class that a method stands in, and the method."""
        passed: list[Class] = []
        held = None
        for cls in self.lineage():
            if not cls.looked:
                cls.looked = True
                defined = (item for item in cls.node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)))
                cls.found |= {item.name: (cls, item) for item in defined}
            if name in cls.found:
                held = cls.found[name]
                break
            passed.append(cls)
        for cls in passed:
            cls.found[name] = held
        return held

    def lineage(self) -> Iterator[Class]:
        """The class, and what it extends of the file, the nearest first."""
        cls: Class | None = self
        while cls is not None:
            yield cls
            cls = cls.extends


@dataclass(slots=True, eq=False)
class Trainer:
    """A Trainer: trains when ``train()`` is called, or at the end of the file."""

    call: Call
    net: TrackedModel | None
    arguments: Record | None
    api: Any
    trained: bool = False
    judged: bool = False
    """Whether it evaluates or predicts: where nothing calls ``train()``, it is then no training."""


def held_by(owner: Record) -> list[TrackedModel]:
    """The models that an object holds, itself or through others."""
    found: list[TrackedModel] = []
    todo, seen = [owner], {id(owner)}
    while todo:
        for given in todo.pop().items.values():
            if isinstance(given.value, TrackedModel) and given.value not in found:
                found.append(given.value)
            elif isinstance(given.value, Record) and id(given.value) not in seen:
                seen.add(id(given.value))
                todo.append(given.value)
    return found


@dataclass(slots=True, eq=False)
class Sequence:
    """A list or tuple."""

    values: list[Object]
    span: Span | None = None


@dataclass(slots=True, eq=False)
class Scope:
    """Names of a module or a function call, and of what surrounds it."""

    names: dict[str, Object] = field(default_factory=dict)
    outer: Scope | None = None

    def find(self, name: str) -> Object | None:
        """What a name stands for; None where nothing is bound to it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of the file."""

    value: bool | int | float | str | None


Object = (
    Unknown
    | Constant
    | Symbol
    | Record
    | TrackedModel
    | Parameters
    | Submodule
    | Output
    | Function
    | Class
    | Trainer
    | Sequence
)

_DEEPEST = 6
#: values that are copied, or looked at, in the time of one step
_CHEAP = 4


def frozen(value: Object, effort: Effort, depth: int = 0) -> Value:
    """A value as facts. Raises TooLong where it holds too many."""
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Symbol):
        return value
    if depth < _DEEPEST:
        if isinstance(value, Record):
            return value.frozen(effort, depth)
        if isinstance(value, Sequence):
            effort.spend(len(value.values) // _CHEAP)
            return tuple(frozen(item, effort, depth + 1) for item in value.values)
    return UNKNOWN
