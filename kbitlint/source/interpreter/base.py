"""The base class of the interpreter's parts, and the exceptions that end a block.

The base class holds the state of one pass over a file. It declares each method that one part calls on another. The
parts implement these methods in the other files of this folder; this file imports none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.source.interpreter.objects import (
    Class,
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
    from contextlib import AbstractContextManager

    from kbitlint.facts.values import Span
    from kbitlint.source.interpreter.imported_files import ImportedFiles
    from kbitlint.source.interpreter.objects import Object, Output, Tensor
    from kbitlint.source.interpreter.path_state import PathState
    from kbitlint.source.interpreter.relevance import Relevance
    from kbitlint.source.interpreter.uncalled_functions import UncalledFunction
    from kbitlint.source.offsets import Text


class Interpreter:
    """The state of one pass over a file, and the interface between the parts.

    Every part derives from this class and from no other part. ``paths.ScriptInterpreter`` combines them.
    """

    _parameter_names: frozenset[str] = frozenset()
    whole_loop: bool = False
    """Whether the loop around the current statement goes through all parameters of a model."""
    filters: tuple[tuple[ast.expr, bool], ...] = ()
    """The conditions on parameters around the current statement, each with the answer that leads to it."""

    def __init__(
        self,
        text: Text,
        trail: PathState,
        relevance: Relevance,
        decisions: Mapping[str, bool],
        files: ImportedFiles | None = None,
    ) -> None:
        self.text = self.main_text = text
        self.main_relevance = relevance
        self.files = files
        """The files of the repository that the script imports; None if they are not followed."""
        self.modules: dict[str, Scope] = {}
        """The names of each imported file that the path has followed, by path and by module name."""
        self.trail = trail
        self.effort = trail.effort
        self.relevance = relevance
        self.given = decisions
        """The answers with which the path started."""
        self.decisions = dict(decisions)
        """The answers of this path, by question; True for a question without a starting answer."""
        self.asked: dict[str, int] = {}
        """The questions that the path has answered, in their order, with the stage of the file that asks each first."""
        self.stage = 0
        """The number of the stage that the path follows."""
        self.instance: Record | None = None
        """The instance whose methods the path follows one by one; None outside such a class."""
        self.equal: dict[str, Object] = {}
        """The values that unknown expressions have on this path, by key of the expression."""
        self.moved: dict[str, Object] = {}
        """The values of options of the command line that differ from their defaults on this path, by option."""
        self.module = Scope()
        self.scope = self.module
        self.loops: list[Span] = []
        """The loops around the current statement, the outermost first."""
        self.callers: list[Scope] = []
        """The scopes of the calls around the current function, the outermost first."""
        self.depth = 0
        """The number of calls of the file's own functions around the current statement."""
        self.untracked = 0
        """The number of ``no_grad`` or ``inference_mode`` contexts and decorators around the current statement."""
        self.used: set[int] = set()
        """The ids of the syntax nodes of functions and classes that the path has followed."""
        self.units: list[UncalledFunction] = []

    def inside(self, scope: Scope) -> AbstractContextManager[None]:
        """Read the text and the relevant statements of the file whose names a scope holds."""
        raise NotImplementedError

    def member_of(self, module: str, name: str) -> Object | None:
        """Return the value of a name of a file that the script imports as a module; None if it imports none so."""
        raise NotImplementedError

    def block(self, statements: Iterable[ast.stmt]) -> None:
        """Follow statements in order."""
        raise NotImplementedError

    def bind(self, target: ast.expr, value: Object, written: ast.expr | None = None) -> None:
        """Bind the target of an assignment to a value; ``written`` is the expression that the script assigns."""
        raise NotImplementedError

    def filters_parameters(self, test: ast.expr) -> bool:
        """Return whether a condition depends on the parameters that a loop iterates over."""
        raise NotImplementedError

    def filtered(self, node: ast.If) -> None:
        """Follow both branches of a condition on the parameters of a loop; each branch applies to a part of them."""
        raise NotImplementedError

    def run(self, function: Function, arguments: Record) -> Object:
        """Follow the body of a function with its parameters bound, and return the function's value."""
        raise NotImplementedError

    def member(self, cls: Class, name: str, owner: Record | Class) -> Object:
        """Return the member of a class with this name, bound to an instance or to the class."""
        raise NotImplementedError

    def called(self, instance: Record) -> Object:
        """Return the method that a call of an instance runs: ``__call__``, or ``forward`` if the class has a known base."""
        raise NotImplementedError

    def make(self, cls: Class, arguments: Record) -> Object:
        """Return an instance of a class of the file; a known base class decides the kind of object."""
        raise NotImplementedError

    def _class(self, node: ast.ClassDef) -> Class:
        raise NotImplementedError

    def fields(self, cls: Class) -> Iterator[tuple[str, Entry]]:
        """Yield the fields of a dataclass, or the attributes of a class, with their defaults."""
        raise NotImplementedError

    def _items_method(self, node: ast.Call, name: str, owner: Record) -> Object:
        raise NotImplementedError

    def arguments(self, node: ast.Call, callee: str, parameters: tuple[str, ...] = ()) -> Record:
        """Return the arguments of a call by name; a positional argument without a known parameter has its number as name."""
        raise NotImplementedError

    def _local(self, function: Function | Class | TrackedModel, arguments: Record) -> Object:
        raise NotImplementedError

    def _adopted(self, node: ast.expr) -> TrackedModel:
        """Return a new model for an expression with an unknown value, and bind it to that expression."""
        raise NotImplementedError

    def _known(self, node: ast.Call, full: str) -> Object:
        raise NotImplementedError

    def _model_method(self, node: ast.Call, name: str, net: TrackedModel) -> Object:
        raise NotImplementedError

    def weights_method(self, node: ast.Call, name: str, net: TrackedModel) -> Object:
        """Return the state dict of a model, or record that it gets that of a model that the path has followed."""
        raise NotImplementedError

    def part_method(self, node: ast.Call, name: str, part: Submodule) -> Object:
        """Apply a method of a module of a model."""
        raise NotImplementedError

    def set_grad(self, parameters: Parameters, value: Object, span: Span, written: ast.expr | None = None) -> None:
        """Apply ``parameter.requires_grad = value`` to all parameters of a model, or to the filtered ones.

        ``written`` is the expression that the script assigns.
        """
        raise NotImplementedError

    def set_copies(self, net: TrackedModel, value: Object, span: Span, written: ast.expr | None) -> None:
        """Record which copies of modules, trained beside adapters, a loop over named parameters freezes or unfreezes."""
        raise NotImplementedError

    def set_parts(self, net: TrackedModel, value: Object, span: Span, written: ast.expr | None) -> bool:
        """Apply an assignment of ``requires_grad`` in a loop over names; return whether all names decide it."""
        raise NotImplementedError

    def zero_parts(self, net: TrackedModel) -> None:
        """Record which halves of the adapters a loop over names fills with zeros."""
        raise NotImplementedError

    def _set_grad(self, node: ast.Call, parameters: Parameters, name: str) -> None:
        raise NotImplementedError

    def _backward(self, node: ast.Call, owner: Object) -> None:
        raise NotImplementedError

    def output(self, net: TrackedModel, arguments: Record | None = None) -> Output:
        """Return the output of a call of a model."""
        raise NotImplementedError

    def computed(self, output: Output, name: str, arguments: Record) -> Object:
        """Return what a method of an output, or of a loss, returns."""
        raise NotImplementedError

    def tensor_call(self, name: str, arguments: Record) -> Object | None:
        """Return the tensor that a function of torch makes; None for every other function."""
        raise NotImplementedError

    def tensor_method(self, tensor: Tensor, name: str, arguments: Record) -> Object:
        """Return what a method of a tensor returns."""
        raise NotImplementedError

    def set_item(self, tensor: Tensor, key: ast.expr, value: Object) -> None:
        """Apply ``tensor[key] = value``."""
        raise NotImplementedError

    def training_call(self, name: str, arguments: Record) -> None:
        """Apply a function of torch, or of another library, that takes part in a training: an optimizer, a switch."""
        raise NotImplementedError

    def silence(self, net: TrackedModel, written: ast.expr | None, span: Span) -> None:
        """Record an assignment to the forward of a model, if it switches gradients off."""
        raise NotImplementedError

    def give_away(self, node: ast.Call) -> None:
        """Make the state of each model that a call outside the path receives uncertain."""
        raise NotImplementedError

    def _escape(self, arguments: Record, name: str) -> None:
        """Make the state of each model among the arguments of an unknown function uncertain: the function may change it."""
        raise NotImplementedError

    def rename_base(self, net: TrackedModel) -> None:
        """Record the names that hold the base model, while another object holds the model with adapters."""
        raise NotImplementedError

    def is_base(self, node: ast.expr | None) -> bool:
        """Return whether an expression is a name that holds the base model of a model with adapters."""
        raise NotImplementedError

    def trainer(self, name: str, arguments: Record, *, base: bool = False) -> Object:
        """Return a Trainer after applying the changes that its constructor makes to the model.

        Args:
            name: The Trainer's class.
            arguments: The arguments of its constructor.
            base: Whether the model is given by a name that holds the base of a model with adapters.
        """
        raise NotImplementedError

    def decide(self, test: ast.expr) -> bool:
        """Return whether a condition holds on this path; a path answers each unknown condition once."""
        raise NotImplementedError

    def key_of(self, node: ast.expr) -> str:
        """Return an expression as a key; expressions with the same value on one path have the same key."""
        raise NotImplementedError

    def forget(self, name: str) -> None:
        """Forget what the path's answers tell about a name that the script binds again."""
        raise NotImplementedError

    def answer(self, key: str, *, first: bool = True) -> bool:
        """Return this path's answer to a question that the file leaves open; ``first`` is the one that is followed first."""
        raise NotImplementedError

    def optimizer_claims(self) -> dict[int, frozenset[bool]]:
        """Return ``TrackedModel.handed`` of each model, by number, so that a caller can restore it."""
        raise NotImplementedError

    def value(self, node: ast.expr | None) -> Object:
        """Return the value of an expression; an absent one, None, has the value ``Constant(None)``."""
        raise NotImplementedError

    def evaluated(self, node: ast.expr) -> Object:
        """Return the value of an expression without what the path's answers tell about it."""
        raise NotImplementedError

    def field(self, owner: Record | Class, name: str) -> Object:
        """Return an attribute of an instance, or of a class of the file."""
        raise NotImplementedError

    def merge(self, into: Record, value: Object) -> None:
        """Add the items of ``**value`` to a record."""
        raise NotImplementedError

    def joined(self, left: Sequence, right: Sequence) -> Sequence:
        """Return the concatenation of two lists."""
        raise NotImplementedError
