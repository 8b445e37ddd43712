"""The values that names have while the interpreter follows one path.

This file holds the types and ``frozen``, which turns them into facts. The interpreter's parts create and change them.
"""

from __future__ import annotations

import ast
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.facts.values import FUNCTION, UNKNOWN, Argument, Call, Span, Style, Symbol, Unknown, Value
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.own_loops import Origin
    from kbitlint.facts.training import Batch
    from kbitlint.source.interpreter.effort import Effort
    from kbitlint.source.interpreter.imported_files import ImportedFile


@dataclass(frozen=True, slots=True)
class Entry:
    """A value with a name, and its place in the script."""

    value: Object
    span: Span
    whole: Span
    """The place of the value with its name."""


@dataclass(slots=True, eq=False)
class Record:
    """Named values: a dict, an instance, or the arguments of a call."""

    callee: str = "dict"
    items: dict[str, Entry] = field(default_factory=dict)
    complete: bool = True
    """Whether ``items`` holds every value; False if ``**kwargs`` or an unknown key may add others."""
    span: Span = field(default_factory=lambda: Span(0, 0, 1))
    style: Style = Style.CALL
    tail: int = 0
    """The offset at which the last argument ends; 0 if there is none."""
    of: Class | None = None
    """The class of the file of an instance; None for every other record."""
    from_command_line: bool = False
    """Whether options of the command line set the values."""
    switches: frozenset[str] = frozenset()
    """The options of a command line without a value of their own, which are True or False."""

    def get(self, name: str) -> Object:
        """Return the value with this name; UNKNOWN if there is none."""
        given = self.items.get(name)
        return UNKNOWN if given is None else given.value

    def frozen(self, effort: Effort, depth: int = 0) -> Call:
        """Return the record as facts.

        Raises:
            TooLong: The values take more steps than ``effort`` has left.
        """
        effort.spend(len(self.items) // _CHEAP)
        arguments = tuple(
            Argument(name, frozen(given.value, effort, depth + 1), given.span, given.whole)
            for name, given in self.items.items()
        )
        return Call(self.callee, self.span, arguments, self.complete, self.style, self.tail)


@dataclass(slots=True, eq=False)
class TrackedModel:
    """A model; all names and wrappers of it refer to this one object."""

    number: int
    state: ModelState
    outputs: int = 0
    """The number of the script's forward passes that track gradients."""
    in_optimizer: bool = False
    """Whether an optimizer holds its parameters."""
    handed: frozenset[bool] = frozenset()
    """Whether adapters were attached at each time that the script took the model's parameters."""
    optimizer: Call | None = None
    """The call that created an optimizer before adapters were attached; None too if a later optimizer includes them."""

    def hand_out(self) -> None:
        """Record that the script takes the model's parameters in its present state."""
        self.handed |= {self.state.adapters is not None}


@dataclass(slots=True, eq=False)
class Parameters:
    """The value of ``model.parameters()``, or one of its items."""

    net: TrackedModel
    filtered: bool = False
    """Whether the value holds only some of the parameters."""
    once: bool = False
    """Whether it is an iterator, which gives its items once."""
    used: bool = False

    def listed(self) -> Parameters:
        """Return a list of the items, which the iterator gives."""
        self.used = True
        return Parameters(self.net, self.filtered)


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole state dict of a model."""

    state: ModelState


@dataclass(slots=True, eq=False)
class Submodule:
    """A module or parameter of a model."""

    net: TrackedModel


@dataclass(slots=True, eq=False)
class Tensor:
    """A tensor of whole numbers: its bounds, a number that some value reaches, and its shape. None where it is not known."""

    low: int | None
    high: int | None
    peak: int | None
    shape: tuple[int | None, ...] | None = None


@dataclass(slots=True, eq=False)
class Output:
    """The output of a model, or a loss computed from it."""

    net: TrackedModel
    origin: Origin | None = None
    """Why no gradient flows through it; None if one does."""
    batch: Batch | None = None
    passed: Call | None = None
    """The backward pass that has freed its graph; None if there is none, or if none is to be freed."""


@dataclass(slots=True, eq=False)
class Function:
    """A function of the file."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope
    receiver: Record | Class | None = None
    of: Class | None = None
    """The class whose body defines the function; None for other functions."""


@dataclass(slots=True, eq=False)
class Class:
    """A class of the file."""

    node: ast.ClassDef
    scope: Scope
    base: str = ""
    """The full name of the library class that it extends, directly or through classes of the file; empty if there is none."""
    extends: Class | None = None
    """The first class of the file that it extends directly; None if there is none."""
    inherited: tuple[Class, ...] = ()
    """The classes of the file that it extends, if several directly, in the order in which Python looks for a method."""
    found: dict[str, tuple[Class, ast.FunctionDef | ast.AsyncFunctionDef] | None] = field(default_factory=dict)
    """A cache of method lookups: the defining class and the method; None if no class of the file defines the name."""
    looked: bool = False

    def method(self, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """Return a method by name, the class's own or an inherited one of the file; None if there is none."""
        return found[1] if (found := self.holder(name)) is not None else None

    def holder(self, name: str) -> tuple[Class, ast.FunctionDef | ast.AsyncFunctionDef] | None:
        """Return the class that defines a method, and the method; None if no class of the file does."""
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
        """Yield the class and the classes of the file that it extends, the nearest first."""
        cls: Class | None = self
        while cls is not None:
            yield cls
            if cls.inherited:
                yield from cls.inherited
                return
            cls = cls.extends


@dataclass(slots=True, eq=False)
class Trainer:
    """A Trainer; it trains when the script calls ``train()``, or else at the end of the file."""

    call: Call
    net: TrackedModel | None
    arguments: Record | None
    api: Any
    trained: bool = False
    prepared: str = ""
    """How its constructor has prepared the model, as in ``TrainerBehavior``; empty if it has not."""
    batch: Batch | None = None
    """What is known of its data; None if nothing is."""
    judged: bool = False
    """Whether the script calls ``evaluate()`` or ``predict()``. Without ``train()``, no training is recorded then."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A list or tuple."""

    values: list[Object]
    span: Span | None = None


@dataclass(slots=True, eq=False)
class Scope:
    """The names of a module or a function call, with the scope around it."""

    names: dict[str, Object] = field(default_factory=dict)
    outer: Scope | None = None
    home: ImportedFile | None = None
    """The imported file whose names these are; None for the script itself, and for inner scopes."""
    shared: frozenset[str] = frozenset()
    """The names of a function that it declares as global."""

    def find(self, name: str) -> Object | None:
        """Return the value of a name; None if the name is not bound."""
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
    flag: str = field(default="", compare=False)
    """The option of the command line whose default this is; empty if there is none."""


Object = (
    Unknown
    | Constant
    | Symbol
    | Record
    | TrackedModel
    | Parameters
    | Submodule
    | Tensor
    | Weights
    | Output
    | Function
    | Class
    | Trainer
    | Sequence
)

_DEEPEST = 6
_CHEAP = 4  # values that take as long to copy or read as one step


def frozen(value: Object, effort: Effort, depth: int = 0) -> Value:
    """Return a value as facts. Models and values nested deeper than ``_DEEPEST`` become UNKNOWN.

    Raises:
        TooLong: The value takes more steps than ``effort`` has left.
    """
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, (Symbol, Function)):
        return value if isinstance(value, Symbol) else FUNCTION
    if depth < _DEEPEST:
        if isinstance(value, Record):
            return value.frozen(effort, depth)
        if isinstance(value, Sequence):
            effort.spend(len(value.values) // _CHEAP)
            return tuple(frozen(item, effort, depth + 1) for item in value.values)
    return UNKNOWN
