"""The methods that one part of the interpreter calls on another.

The parts implement them in the other files of this folder; this file imports none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from kbitlint.facts.values import Span, Value
    from kbitlint.source.interpreter.objects import (
        Class,
        Entry,
        Function,
        Object,
        Output,
        Parameters,
        Record,
        Scope,
        Sequence,
        Submodule,
        Tensor,
        TrackedModel,
    )


class Interface:
    """The interface between the parts; ``base.Interpreter`` adds the state that they share."""

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

    def builtin(self, name: str, arguments: Record, span: Span) -> Object | None:
        """Return the value of a builtin with known arguments; None if it is another function, or depends on unknown ones."""
        raise NotImplementedError

    def special(self, name: str, arguments: Record) -> Object:
        """Return a parser of command lines, an Accelerator, a copy of a model, a variable's default, or ``super()``'s value."""
        raise NotImplementedError

    def container(self, name: str, arguments: Record, span: Span) -> Object | None:
        """Return the container that a function of Python, or of a library of containers, makes; None if it makes none."""
        raise NotImplementedError

    def dict_method(self, name: str, owner: Record, arguments: Record) -> Object:
        """Apply a method of a dict, and return its value."""
        raise NotImplementedError

    def list_method(self, name: str, owner: Sequence, arguments: Record) -> Object:
        """Apply a method of a list or a set, and return its value."""
        raise NotImplementedError

    def comprehended(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, over: Object) -> Object:
        """Return the list that a comprehension makes of a list or dict; UNKNOWN if its conditions do not decide it."""
        raise NotImplementedError

    def filtered_dict(self, node: ast.DictComp, over: Record) -> Object:
        """Return the dict that a comprehension with conditions makes of another one; UNKNOWN if they do not decide it."""
        raise NotImplementedError

    def as_dict(self, owner: Record) -> Record:
        """Return the fields of an instance as a dict, those of the instances in it too."""
        raise NotImplementedError

    def fields_of(self, name: str, owner: Record) -> Object | None:
        """Return what a method returns that gives the fields of an instance; None for every other method."""
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

    def cast_part(self, net: TrackedModel, owner: ast.expr, dtype: Value, span: Span, *, ending: str = "") -> None:
        """Record a cast of a parameter or module: in a loop over all of them, of those that its conditions choose."""
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
