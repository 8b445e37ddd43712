"""The state of one pass over a file, what the parts ask of each other, and the ways in which a pass is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.source.interpreter.objects import (
    Class,
    Constant,
    Entry,
    Function,
    Parameters,
    Record,
    Scope,
    Sequence,
    Submodule,
    TrackedModel,
)

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Iterator, Mapping

    from kbitlint.facts.values import Span
    from kbitlint.source.interpreter.objects import Object
    from kbitlint.source.interpreter.path_state import PathState
    from kbitlint.source.interpreter.relevance import Relevance
    from kbitlint.source.interpreter.uncalled_functions import UncalledFunction
    from kbitlint.source.offsets import Text


class PathEnd(Exception):  # noqa: N818  # not an error: the script leaves here
    """The script ends: ``sys.exit()``, or an exception that nothing catches."""


class Returned(Exception):  # noqa: N818  # no error
    """A function's value on its way out."""

    def __init__(self, value: Object) -> None:
        self.value = value


class LoopLeft(Exception):  # noqa: N818  # no error
    """``break`` or ``continue``."""


class Interpreter:
    """State of one pass; every part derives from it, and finds here what it asks of other parts."""

    _parameter_names: frozenset[str] = frozenset()

    def __init__(self, text: Text, trail: PathState, relevance: Relevance, decisions: Mapping[str, bool]) -> None:
        self.text = text
        self.trail = trail
        self.effort = trail.effort
        self.relevance = relevance
        self.given = decisions
        self.decisions = dict(decisions)
        self.asked: dict[str, None] = {}
        """The questions that the path was asked, in their order."""
        self.equal: dict[str, Constant] = {}
        self.module = Scope()
        self.scope = self.module
        self.loops: list[Span] = []
        self.depth = 0
        self.untracked = 0
        """How many contexts, or functions, around here let no gradient through."""
        self.used: set[int] = set()
        self.units: list[UncalledFunction] = []

    def block(self, statements: Iterable[ast.stmt]) -> None:
        """Statements one after the other."""
        raise NotImplementedError

    def bind(self, target: ast.expr, value: Object, written: ast.expr | None = None) -> None:
        """Bind what an assignment names."""
        raise NotImplementedError

    def filters_parameters(self, test: ast.expr) -> bool:
        """Whether a condition is about the parameters that a loop goes through."""
        raise NotImplementedError

    def filtered(self, node: ast.If) -> None:
        """Both branches, on some of the parameters each."""
        raise NotImplementedError

    def run(self, function: Function, arguments: Record) -> Object:
        """Follow the body of a function with its parameters bound."""
        raise NotImplementedError

    def member(self, cls: Class, name: str, owner: Record | Class) -> Object:
        """What a class holds under a name, bound to an instance or to the class."""
        raise NotImplementedError

    def called(self, instance: Record) -> Object:
        """What runs where an instance is called: ``__call__``, or what a module of torch calls."""
        raise NotImplementedError

    def make(self, cls: Class, arguments: Record) -> Object:
        """An instance of a class of the file: what it extends decides where that is known."""
        raise NotImplementedError

    def _class(self, node: ast.ClassDef) -> Class:
        raise NotImplementedError

    def fields(self, cls: Class) -> Iterator[tuple[str, Entry]]:
        """The fields of a dataclass, or the attributes of a class, with their defaults."""
        raise NotImplementedError

    def _items_method(self, node: ast.Call, name: str, owner: Record) -> Object:
        raise NotImplementedError

    def arguments(self, node: ast.Call, callee: str, parameters: tuple[str, ...] = ()) -> Record:
        """The arguments of a call by name; positional ones are named by the parameters, or by their number."""
        raise NotImplementedError

    def _local(self, function: Function | Class | TrackedModel, arguments: Record) -> Object:
        raise NotImplementedError

    def _adopted(self, node: ast.expr) -> TrackedModel:
        """A model that is seen here for the first time: whoever holds it holds this one from now on."""
        raise NotImplementedError

    def _known(self, node: ast.Call, full: str) -> Object:
        raise NotImplementedError

    def _model_method(self, node: ast.Call, name: str, net: TrackedModel) -> Object:
        raise NotImplementedError

    def part_method(self, node: ast.Call, name: str, part: Submodule) -> Object:
        """A method of a module of a model."""
        raise NotImplementedError

    def set_grad(self, parameters: Parameters, value: Object, span: Span) -> None:
        """``parameter.requires_grad = value`` for every parameter of a model, or for some."""
        raise NotImplementedError

    def _set_grad(self, node: ast.Call, parameters: Parameters, name: str) -> None:
        raise NotImplementedError

    def _backward(self, node: ast.Call, owner: Object) -> None:
        raise NotImplementedError

    def give_away(self, node: ast.Call) -> None:
        """A call that is not followed, with whatever models it is handed."""
        raise NotImplementedError

    def _escape(self, arguments: Record, name: str) -> None:
        """A model that is handed to something unknown may come back changed."""
        raise NotImplementedError

    def trainer(self, name: str, arguments: Record) -> Object:
        """A Trainer, with what building it does to the model."""
        raise NotImplementedError

    def decide(self, test: ast.expr) -> bool:
        """Whether a condition holds on this path; each unknown one is asked about once."""
        raise NotImplementedError

    def answer(self, key: str) -> bool:
        """How this path answers a question that the file leaves open."""
        raise NotImplementedError

    def optimizer_claims(self) -> dict[int, frozenset[bool]]:
        """Of each model, to whom its parameters were given so far."""
        raise NotImplementedError

    def value(self, node: ast.expr | None) -> Object:
        """What an expression stands for."""
        raise NotImplementedError

    def field(self, owner: Record | Class, name: str) -> Object:
        """An attribute of an instance, or of a class of the file."""
        raise NotImplementedError

    def merge(self, into: Record, value: Object) -> None:
        """Add the items of ``**value``."""
        raise NotImplementedError

    def joined(self, left: Sequence, right: Sequence) -> Sequence:
        """Two lists as one."""
        raise NotImplementedError
