"""Calls, and the choice of the part that follows each of them.

``functions.py`` follows functions of the file. ``library_calls.py`` and ``model_calls.py`` apply those of libraries.
"""

from __future__ import annotations

import ast

from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Call, Symbol
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.names import CONTAINERS, parameters_of
from kbitlint.source.interpreter.objects import (
    Class,
    Constant,
    Entry,
    Function,
    Object,
    Output,
    Parameters,
    Record,
    Sequence,
    Submodule,
    Tensor,
    TrackedModel,
    Trainer,
)
from kbitlint.source.interpreter.predicates import text_method, text_value
from kbitlint.upstream.calls import METHODS

#: methods of texts that are followed
_TEXTS = ("startswith", "endswith", "lower")
#: builtins that read an iterator to its end
_CONSUMES = frozenset({"sum", "max", "min", "all", "any", "sorted", "set"})
_ATTACHED = ("base_model", "model", "module")
#: methods of an Accelerator that return the model inside of the wrappers for ranks (accelerate 1.15, ``accelerator.py``)
_UNWRAPS = ("unwrap_model", "_unwrap_model")


class Calls(Interpreter):
    """The part of the interpreter that evaluates calls and their arguments."""

    def arguments(self, node: ast.Call, callee: str, parameters: tuple[str, ...] = ()) -> Record:
        """Return the arguments of a call by name; a positional argument without a known parameter has its number as name."""
        made = Record(callee, span=self.text.span(node))
        before_them = self._add_preset(made, node, parameters) if self.preset else 0
        looks = "clip_grad" in callee  # clip_grad_norm_ and clip_grad_value_ read gradients only
        before = self.optimizer_claims() if looks else {}
        for number, argument in enumerate(node.args, before_them):
            if isinstance(argument, ast.Starred):
                self._spread(node.args[number - before_them :], number, made, parameters)
                break
            span = self.text.span(argument)
            made.items[parameters[number] if number < len(parameters) else str(number)] = Entry(
                self.value(argument), span, span
            )
            made.tail = span.end
        for keyword in node.keywords:
            value, span = self.value(keyword.value), self.text.span(keyword.value)
            whole = self.text.span(keyword)
            made.tail = max(made.tail, span.end)
            if keyword.arg is None:
                self.merge(made, value)
            else:
                made.items[keyword.arg] = Entry(value, span, whole)
        if looks:
            for net in self.trail.nets:
                net.handed = before.get(net.number, frozenset())
        return made

    def _add_preset(self, made: Record, node: ast.Call, parameters: tuple[str, ...]) -> int:
        """Add what a ``functools.partial`` gives to the arguments of a call; return how many of them have a place."""
        preset = self.preset.pop(id(node), None)
        if preset is None:
            return 0
        made.complete = preset.complete
        for key, given in preset.items.items():
            made.items[parameters[int(key)] if key.isdigit() and int(key) < len(parameters) else key] = given
        return sum(key.isdigit() for key in preset.items)

    def _spread(self, written: list[ast.expr], number: int, made: Record, parameters: tuple[str, ...]) -> None:
        """Add positional arguments, ``*given`` among them, as far as they are known."""
        for argument in written:
            span = self.text.span(argument)
            value = self.value(argument.value if isinstance(argument, ast.Starred) else argument)
            made.tail = span.end
            if isinstance(argument, ast.Starred) and (not isinstance(value, Sequence) or UNKNOWN in value.values):
                made.complete = False
                return
            spread = value.values if isinstance(argument, ast.Starred) and isinstance(value, Sequence) else [value]
            for one in spread:
                made.items[parameters[number] if number < len(parameters) else str(number)] = Entry(one, span, span)
                number += 1

    def _call(self, node: ast.Call) -> Object:
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value)
            if not isinstance(owner, Symbol):
                return self._method(node, node.func, owner)
            found = self.member_of(owner.name, node.func.attr) if self.modules else None
            if found is None:
                return self._known(node, f"{owner.name}.{node.func.attr}")
            return self._called(node, found)
        return self._called(node, self.value(node.func))

    def _called(self, node: ast.Call, function: Object) -> Object:
        if isinstance(function, Symbol):
            return self._known(node, function.name)
        if isinstance(function, Record) and function.callee == "functools.partial":
            return self._partial(node, function)
        if isinstance(function, Record):
            function = self.called(function)
        if isinstance(function, (Function, Class, TrackedModel)):
            return self._local(function, self.arguments(node, "", parameters_of(function)))
        if isinstance(node.func, ast.Name) and node.func.id in _CONSUMES:
            self._consume(node)
        arguments = self.arguments(node, "")
        named = isinstance(node.func, ast.Name) and node.func.id in CONTAINERS
        made = self.container(node.func.id, arguments, arguments.span) if named and isinstance(node.func, ast.Name) else None
        self._escape(arguments, "")
        return UNKNOWN if made is None else made

    def _partial(self, node: ast.Call, partial: Record) -> Object:
        """Return the value of a call of a ``functools.partial``: that of its function, with the arguments of both."""
        numbered = {str(int(key) - 1) if key.isdigit() else key: given for key, given in partial.items.items() if key != "0"}
        earlier = self.preset.get(id(node))  # a partial of a partial
        for key, given in earlier.items.items() if earlier is not None else ():
            places = sum(one.isdigit() for one in numbered)
            numbered[str(places) if key.isdigit() else key] = given
        self.preset[id(node)] = Record(items=numbered, complete=partial.complete)
        try:
            return self._called(node, partial.get("0"))
        finally:
            self.preset.pop(id(node), None)

    def _consume(self, node: ast.Call) -> None:
        """Use up the iterator of parameters that a builtin reads: ``sum(p.numel() for p in parameters)``."""
        for given in node.args:
            over = given.generators[0].iter if isinstance(given, ast.GeneratorExp) else given
            value = self.scope.find(over.id) if isinstance(over, ast.Name) else None
            if isinstance(value, Parameters):
                value.used = True

    def _local(self, function: Function | Class | TrackedModel, arguments: Record) -> Object:
        if isinstance(function, TrackedModel):
            return self.output(function, arguments)
        return self.run(function, arguments) if isinstance(function, Function) else self.make(function, arguments)

    def _method(self, node: ast.Call, func: ast.Attribute, owner: Object) -> Object:
        name = func.attr
        if isinstance(owner, (TrackedModel, Record, Parameters, Submodule, Trainer)):
            return self._followed_method(node, name, owner)
        if isinstance(owner, Class):
            return self._class_method(node, name, owner)
        if name == "backward":
            self._backward(node, owner)
            return UNKNOWN
        if isinstance(owner, Output):
            return self.computed(owner, name, self.arguments(node, name))
        if owner is UNKNOWN and self._changes_models(node, name):
            return self._model_method(node, name, self._adopted(func.value))
        arguments = self.arguments(node, name)
        if isinstance(owner, (Tensor, Constant, Sequence)):
            return self._plain_method(owner, name, arguments)
        if name in _UNWRAPS:
            return arguments.get("0" if "0" in arguments.items else "model")
        if name == "fit":
            self._fit(arguments)
        self._escape(arguments, name)
        return UNKNOWN

    def _plain_method(self, owner: Tensor | Constant | Sequence, name: str, arguments: Record) -> Object:
        """Return the value of a method of a tensor, a list or a text."""
        if isinstance(owner, Sequence):
            return self.list_method(name, owner, arguments)
        if isinstance(owner, Tensor):
            return self.tensor_method(owner, name, arguments)
        if isinstance(owner.value, str) and name in _TEXTS:
            return text_method(owner, name, arguments.get("0"))
        made = text_value(owner, name, arguments) if isinstance(owner.value, str) else None
        if made is not None:
            return made
        self._escape(arguments, name)
        return UNKNOWN

    def _fit(self, arguments: Record) -> None:
        """Follow what Lightning's ``fit`` calls of a module of the file: its optimizers, then a step."""
        modules = [given.value for given in arguments.items.values() if isinstance(given.value, Record)]
        for module in modules:
            if module.of is None or not module.of.base.endswith("LightningModule"):
                continue
            for hook in ("configure_optimizers", "training_step"):
                method = self.member(module.of, hook, module)
                if isinstance(method, Function):
                    self.run(method, Record())

    def _class_method(self, node: ast.Call, name: str, cls: Class) -> Object:
        """Apply a method that the script calls on a class of the file itself."""
        member = self.field(cls, name)
        if isinstance(member, (Function, Class, TrackedModel)):
            return self._local(member, self.arguments(node, name, parameters_of(member)))
        if cls.base:
            return self._known(node, f"{cls.base}.{name}")
        self._escape(self.arguments(node, name), name)
        return UNKNOWN

    def _followed_method(
        self, node: ast.Call, name: str, owner: TrackedModel | Record | Parameters | Submodule | Trainer
    ) -> Object:
        """Return the value of a method of an object whose state the path tracks."""
        if isinstance(owner, TrackedModel):
            apply = self.weights_method if name in ("state_dict", "load_state_dict") else self._model_method
            return apply(node, name, owner)
        if isinstance(owner, Record):
            return self._items_method(node, name, owner)
        if isinstance(owner, Parameters):
            if name == "zero_" or (name == "fill_" and self.arguments(node, name).get("0") == Constant(0)):
                self.zero_parts(owner.net)
            self._set_grad(node, owner, name)
            return owner if name.endswith("_") else UNKNOWN
        if isinstance(owner, Submodule):
            return self.part_method(node, name, owner)
        call = self.arguments(node, name).frozen(self.effort)
        if name == "train":
            self.trail.finish(owner)
        elif name == "save_model" and owner.net is not None:
            given = owner.arguments.frozen(self.effort) if owner.arguments is not None else Call(name, call.span)
            folder = call.value("0", call.value("output_dir", given.value("0", given.value("output_dir", UNKNOWN))))
            self.trail.step(Action.SAVE, call, owner.net, owner.net.state, folder)
        elif name in ("evaluate", "predict"):
            owner.judged = True
        return UNKNOWN

    def _changes_models(self, node: ast.Call, name: str) -> bool:
        if any(api.name == name and api.action in (Action.CHECKPOINT, Action.HOOK, Action.MERGE) for api in METHODS):
            return name != "add_adapter"
        return name == "parameters" and not node.args

    def _adopted(self, node: ast.expr) -> TrackedModel:
        """Return a new model for an expression with an unknown value, and bind it to that expression."""
        net = self.trail.adopt()
        while isinstance(node, ast.Attribute) and node.attr in _ATTACHED:
            node = node.value
        self.bind(node, net)
        return net
