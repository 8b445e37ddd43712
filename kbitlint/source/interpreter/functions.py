"""Functions and classes of the file: the interpreter follows their bodies when the script calls them."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Call, Style, Symbol
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.control_flow import LoopLeft, Returned
from kbitlint.source.interpreter.names import canonical, lets_no_gradient_through, makes_inference_tensors
from kbitlint.source.interpreter.objects import Class, Constant, Entry, Function, Object, Output, Record, Scope, Sequence
from kbitlint.source.nodes import last_name, walk
from kbitlint.upstream.calls import TRAINERS, TRAINING_ARGUMENTS

if TYPE_CHECKING:
    from kbitlint.source.interpreter.effort import Effort

_DEEPEST = 12
#: Number of names that take as long to bind as one step.
_CHEAP = 16
#: Classes whose instances are dicts.
_TABLES = ("typing.TypedDict", "typing_extensions.TypedDict")
#: Arguments of a Trainer that decide which model is trained, and how.
_GIVEN = ("model", "args", "peft_config", "kwargs", "kw")


class Functions(Interpreter):
    """The part of the interpreter that follows functions and creates instances."""

    def run(self, function: Function, arguments: Record) -> Object:
        """Follow the body of a function with its parameters bound, and return the function's value.

        The value is UNKNOWN if ``_DEEPEST`` calls surround this one.
        """
        node = function.node
        self.used.add(id(node))
        if self.depth >= _DEEPEST:
            return UNKNOWN
        with self.inside(function.scope):
            return self._run(function, arguments)

    def _run(self, function: Function, arguments: Record) -> Object:
        node = function.node
        scope = Scope(self._bound(node.args, arguments, function), function.scope)
        self.effort.spend(0 if isinstance(node, ast.Lambda) else len(node.decorator_list) // _CHEAP)
        outer, self.scope = self.scope, scope
        self.callers.append(outer)
        loops, self.loops = self.loops, self.loops[:1]
        untracked = not isinstance(node, ast.Lambda) and any(map(lets_no_gradient_through, node.decorator_list))
        inferred = not isinstance(node, ast.Lambda) and any(map(makes_inference_tensors, node.decorator_list))
        self.untracked, self.trail.inferred = self.untracked + untracked, self.trail.inferred + inferred
        self.depth += 1
        try:
            if isinstance(node, ast.Lambda):
                return self.value(node.body)
            self.block(node.body)
        except Returned as returned:
            self._steps_of_lightning(function, returned)
            plain = isinstance(returned.value, (Constant, Sequence)) or getattr(returned.value, "callee", "") == "dict"
            # another value, where a condition that was not followed leaves the function before
            return UNKNOWN if plain and "return" in scope.names else returned.value
        except LoopLeft:
            pass
        finally:
            self.depth -= 1
            self.callers.pop()
            self.untracked, self.trail.inferred = self.untracked - untracked, self.trail.inferred - inferred
            self.scope, self.loops = outer, loops
        return Constant(None)

    def _steps_of_lightning(self, function: Function, returned: Returned) -> None:
        """Record the training of a ``training_step``: Lightning goes backward from the loss that it returns."""
        node = function.node
        if function.of is None or isinstance(node, ast.Lambda) or node.name != "training_step":
            return
        value = returned.value.get("loss") if isinstance(returned.value, Record) else returned.value
        if isinstance(value, Output) and function.of.base.endswith("LightningModule"):
            call = Call("training_step", self.text.span(returned.node or node))
            self.trail.backward(call, value.net, None, "model")

    def _bound(self, parameters: ast.arguments, arguments: Record, function: Function) -> dict[str, Object]:
        names = [argument.arg for argument in (*parameters.posonlyargs, *parameters.args)]
        bound: dict[str, Object] = dict.fromkeys(names, UNKNOWN)
        by_name = zip(names[len(names) - len(parameters.defaults) :], parameters.defaults, strict=True)
        keyword_only = zip((argument.arg for argument in parameters.kwonlyargs), parameters.kw_defaults, strict=True)
        for name, default in (*by_name, *keyword_only):
            bound[name] = self.value(default) if default is not None and arguments.complete else UNKNOWN
        if not arguments.items and arguments.callee == "dict":
            # no call of the file: another file, or a command line, may set the value, so a default of None or False
            # becomes UNKNOWN
            bound = {name: UNKNOWN if value in (Constant(None), Constant(False)) else value for name, value in bound.items()}  # noqa: FBT003  # a value of the file
        rest = Record(style=Style.DICT, complete=arguments.complete)
        self.effort.spend((len(bound) + len(arguments.items)) // _CHEAP)
        by_name_only = {argument.arg for argument in parameters.kwonlyargs}
        for name, given in arguments.items.items():
            if name in bound or name in by_name_only:
                bound[name] = given.value
            elif not name.isdigit():
                rest.items[name] = given
        if parameters.vararg is not None:
            further = [given.value for name, given in arguments.items.items() if name.isdigit() and name not in bound]
            bound[parameters.vararg.arg] = Sequence(further) if arguments.complete and arguments.callee != "dict" else UNKNOWN
        if parameters.kwarg is not None:
            bound[parameters.kwarg.arg] = rest
        if function.receiver is not None and names:
            bound[names[0]] = function.receiver
        above = function.of.extends if function.of is not None else None
        if above is not None and isinstance(function.receiver, Record):
            bound["super()"] = dataclasses.replace(function.receiver, of=above)  # the same attributes
        return bound

    def member(self, cls: Class, name: str, owner: Record | Class) -> Object:
        """Return the member of a class with this name, bound to an instance or to the class; UNKNOWN if there is none.

        A property is evaluated.
        """
        found = cls.holder(name)
        if found is None:
            fields = dict(self.fields(cls)) if isinstance(owner, Class) else {}
            return fields[name].value if name in fields else UNKNOWN
        holder, method = found
        how = {last_name(decorator) for decorator in method.decorator_list}
        self.effort.spend(len(method.decorator_list) // _CHEAP)
        if "staticmethod" in how:
            return Function(method, holder.scope, of=holder)
        if "classmethod" in how:
            return Function(method, holder.scope, cls, holder)
        bound = Function(method, holder.scope, owner if isinstance(owner, Record) else None, holder)
        if not isinstance(owner, Record) or not how & {"property", "cached_property"}:
            return bound
        value = self.run(bound, Record())
        if "cached_property" in how:
            owner.items[name] = Entry(value, owner.span, owner.span)
        return value

    def called(self, instance: Record) -> Object:
        """Return the method that a call of an instance runs: ``__call__``, or ``forward`` if the class has a known base."""
        cls = instance.of
        if cls is None:
            return UNKNOWN
        name = "__call__" if cls.method("__call__") is not None else "forward" if cls.base else ""
        return self.member(cls, name, instance) if name else UNKNOWN

    def make(self, cls: Class, arguments: Record) -> Object:
        """Return an instance of a class of the file; a known base class decides the kind of object.

        A subclass of a Trainer is a Trainer if its constructor passes the arguments on unchanged, and UNKNOWN otherwise.
        """
        self.used.add(id(cls.node))
        if cls.base in TRAINERS:
            if not _passes_on(cls, self.effort):
                self._escape(arguments, cls.node.name)
                return UNKNOWN
            renamed = {TRAINERS[cls.base].parameters[int(name)] if name.isdigit() else name: given
                       for name, given in arguments.items.items()
                       if not name.isdigit() or int(name) < len(TRAINERS[cls.base].parameters)}  # fmt: skip
            return self.trainer(cls.base, dataclasses.replace(arguments, items=renamed))
        self.effort.spend(len(arguments.items) // _CHEAP)
        if cls.base in _TABLES:
            return dataclasses.replace(arguments, callee="dict", items=dict(arguments.items))
        made = dataclasses.replace(arguments, callee=cls.base or cls.node.name, of=cls, items=dict(arguments.items))
        for name, given in dict(self.fields(cls)).items():  # the class's own default in place of an inherited one
            made.items.setdefault(name, given)
        if cls.base in TRAINING_ARGUMENTS:
            self.trail.calls[made.span] = made.frozen(self.effort)
            return made
        init = cls.method("__init__")
        if init is not None:
            inside = dataclasses.replace(made, items=dict(self.fields(cls)))
            bound = self.member(cls, "__init__", inside)
            if isinstance(bound, Function):
                self.run(bound, arguments)
            return inside
        after = self.member(cls, "__post_init__", made) if cls.method("__post_init__") is not None else UNKNOWN
        if isinstance(after, Function):
            self.run(after, Record("__post_init__"))
        return made

    def _class(self, node: ast.ClassDef) -> Class:
        values = [self.value(written) for written in node.bases]
        named = (
            canonical(one.name) if isinstance(one, Symbol) else one.base for one in values if isinstance(one, (Symbol, Class))
        )
        extends = [one for one in values if isinstance(one, Class)]
        inherited: tuple[Class, ...] = ()
        if len(extends) > 1:
            every = [one for cls in extends for one in itertools.islice(cls.lineage(), _CHEAP)]
            self.effort.spend(len(every))
            inherited = tuple(reversed(dict.fromkeys(reversed(every))))
        return Class(node, self.scope, next(filter(None, named), ""), extends[0] if extends else None, inherited)


def _passes_on(cls: Class, effort: Effort) -> bool:
    """Return whether a subclass of a Trainer passes the arguments of its constructor on unchanged."""
    for one in cls.lineage():
        init = one.method("__init__")
        effort.spend()
        for number, node in enumerate(walk(init) if init is not None else ()):
            effort.spend(number % _CHEAP == 0)
            if not _leaves_alone(node):
                return False
    return True


def _leaves_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return node.id not in _GIVEN
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return not (isinstance(node.value, ast.Name) and node.value.id in _GIVEN)
    if not isinstance(node, ast.Call):
        return True
    inherited = isinstance(node.func, ast.Attribute) and node.func.attr == "__init__"
    for argument in node.keywords if inherited else ():
        same = isinstance(argument.value, ast.Name) and argument.value.id == argument.arg
        if argument.arg in _GIVEN and not same:
            return False
    handed = (value.id for value in (*node.args, *(item.value for item in node.keywords)) if isinstance(value, ast.Name))
    return inherited or "model" not in handed
