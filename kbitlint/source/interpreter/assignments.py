"""Assignments: to names, to attributes and items of objects that a path follows, and to parts of models."""

from __future__ import annotations

import ast
import dataclasses

from kbitlint.facts.source import Action
from kbitlint.facts.values import STORED, UNKNOWN, Call, Span, Symbol, Value
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.names import CASTS, known_text
from kbitlint.source.interpreter.objects import (
    Class,
    Entry,
    Object,
    Parameters,
    Record,
    Sequence,
    Submodule,
    Tensor,
    TrackedModel,
    frozen,
)

#: Number of names that take as long to bind as one step.
_CHEAP = 16


class Assignments(Interpreter):
    """The part of the interpreter that follows assignments."""

    def _do_assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            kept = self._kept(target, node.value) if value is UNKNOWN and isinstance(node.value, ast.Call) else value
            if isinstance(value, TrackedModel) and self._wraps(value, node.value):
                self.rename_base(value)
            self.bind(target, kept, node.value)

    def _wraps(self, net: TrackedModel, written: ast.expr) -> bool:
        """Return whether an expression makes a ``PeftModel`` around a model that the script has names for."""
        adapters = net.state.adapters
        wraps = adapters is not None and adapters.by.callee.startswith("peft.") and isinstance(written, ast.Call)
        return wraps and adapters is not None and adapters.by.span == self.text.span(written)

    def _kept(self, target: ast.expr, call: ast.Call) -> Object:
        """Return the model that an unknown function receives, if the script gives the result the same name.

        The function may have changed it: what is known of the model is no longer certain.
        """
        if isinstance(target, (ast.Tuple, ast.List)):
            return Sequence([self._kept(item, call) for item in target.elts])
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        if isinstance(target, ast.Name) and any(isinstance(item, ast.Name) and item.id == target.id for item in given):
            old = self.scope.find(target.id)
            if isinstance(old, TrackedModel):
                return old
        return UNKNOWN

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.bind(node.target, self.value(node.value), node.value)

    def _do_augassign(self, node: ast.AugAssign) -> None:
        value = self.value(node.value)
        old = self.value(node.target)
        if isinstance(old, Record) and isinstance(node.op, ast.BitOr):
            self.merge(old, value)
        elif isinstance(old, Sequence) and isinstance(value, Sequence):
            old.values = self.joined(old, value).values
        elif isinstance(node.target, ast.Name):
            self.scope.names[node.target.id] = UNKNOWN

    def bind(self, target: ast.expr, value: Object, written: ast.expr | None = None) -> None:
        """Bind the target of an assignment to a value; ``written`` is the expression that the script assigns."""
        if isinstance(target, ast.Name):
            self.scope.names[target.id] = value
            if target.id in self.scope.shared:
                self.module.names[target.id] = value
                self.trail.base_names.discard((id(self.module), target.id))
            self.trail.base_names.discard((id(self.scope), target.id))
            if self.equal:
                self.forget(target.id)
        elif isinstance(target, (ast.Tuple, ast.List)):
            self.effort.spend(len(target.elts) // _CHEAP)
            values = value.values if isinstance(value, Sequence) and len(value.values) >= len(target.elts) else None
            for number, item in enumerate(target.elts):
                self.bind(item, UNKNOWN if values is None else values[number])
        elif isinstance(target, ast.Starred):
            self.bind(target.value, UNKNOWN)
        elif isinstance(target, ast.Attribute):
            self._bind_attribute(target, value, written)
        elif isinstance(target, ast.Subscript):
            self._bind_item(target, value, written)

    def _bind_item(self, target: ast.Subscript, value: Object, written: ast.expr | None) -> None:
        owner, key = self.value(target.value), known_text(self.value(target.slice))
        if isinstance(owner, Record):
            self._give(owner, key, target, value, written)
        elif isinstance(owner, Tensor):
            self.set_item(owner, target.slice, value)

    def _bind_attribute(self, target: ast.Attribute, value: Object, written: ast.expr | None) -> None:
        owner = self.value(target.value)
        if isinstance(target.value, ast.Attribute) and target.value.attr == "config":
            self._set_config(target.value.value, target.attr, value)
        if isinstance(owner, Parameters):
            if target.attr == "requires_grad":
                self.set_grad(owner, value, self.text.span(target), written)
            elif target.attr == "data":
                call = Call("data", self.text.span(target))
                every = None if owner.filtered else self._cast_of(written)
                self.cast_part(owner.net, target.value, self._cast_of(written), call.span, ending=".weight")
                self.trail.step(Action.PREPARED_BY_HAND, call, owner.net, owner.net.state, every)
        elif isinstance(owner, Submodule) and target.attr == "requires_grad":
            self.set_grad(Parameters(owner.net, filtered=True), value, self.text.span(target))
        elif isinstance(owner, Submodule):
            owner.net.state = dataclasses.replace(owner.net.state, recast=True)
        elif isinstance(owner, Record):
            self._give(owner, target.attr, target, value, written)
        elif isinstance(owner, TrackedModel):
            self._bind_part(owner, target, written)
        elif owner is UNKNOWN and value is not UNKNOWN:
            self.equal[self.key_of(target)] = value

    def _set_config(self, model: ast.expr, name: str, value: Object) -> None:
        """Record ``model.config.name = value``."""
        net = self.value(model)
        if isinstance(net, TrackedModel):
            setting = name, frozen(value, self.effort)
            net.state = dataclasses.replace(net.state, settings=(setting, *net.state.settings))

    def _bind_part(self, net: TrackedModel, target: ast.Attribute, written: ast.expr | None) -> None:
        """Apply an assignment to an attribute of a model."""
        if isinstance(written, ast.Call):
            net.state = dataclasses.replace(net.state, recast=True)
        if target.attr == "forward":
            self.silence(net, written, self.text.span(target))
        elif target.attr == "gradient_checkpointing":
            net.state = dataclasses.replace(net.state, certain=False)
        elif isinstance(written, ast.Call) and self._widens(written, target):
            call = Call(f"{target.attr} =", self.text.span(target))
            self.trail.step(Action.PREPARED_BY_HAND, call, net, net.state, "head")

    def _cast_of(self, written: ast.expr | None) -> Value:
        """Return the dtype to which an expression casts a tensor: ``p.data.to(torch.bfloat16)``; None if it casts none."""
        if not (isinstance(written, ast.Call) and isinstance(written.func, ast.Attribute)):
            return None
        if written.func.attr in CASTS:
            return CASTS[written.func.attr]
        if written.func.attr not in ("to", "type"):
            return None
        given = (self.value(item) for item in (*written.args, *(keyword.value for keyword in written.keywords)))
        return next((item.last for item in given if isinstance(item, Symbol) and item.last in CASTS.values()), None)

    def _widens(self, call: ast.Call, target: ast.Attribute) -> bool:
        """Return whether a call wraps the module of a model in a class of the file whose output is float32."""
        wrapped = any(isinstance(item, ast.Attribute) and item.attr == target.attr for item in call.args)
        cls = self.value(call.func) if wrapped else UNKNOWN
        if not isinstance(cls, Class):
            return False
        forward = cls.method("forward")
        self.effort.spend(len(cls.node.body))
        inside = ast.walk(forward) if forward is not None else ()
        return any(isinstance(item, ast.Attribute) and item.attr in ("float", "float32") for item in inside)

    def _give(self, owner: Record, name: str | None, target: ast.expr, value: Object, written: ast.expr | None) -> None:
        if name is None:
            owner.complete = False
            return
        span = self.text.span(written if written is not None else target)
        whole = Span(self.text.span(target).start, span.end, span.line)
        owner.items[name] = Entry(value, span, whole)
        if owner.callee == STORED:
            given = dataclasses.replace(owner, items={name: owner.items[name]}, span=whole)
            self.trail.calls[whole] = given.frozen(self.effort)
