"""Gradients of one path: where they are off, the outputs of models, and backward passes."""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.own_loops import DeadLoss, Origin
from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Call, Span
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.batches import batch_of
from kbitlint.source.interpreter.names import lets_no_gradient_through
from kbitlint.source.interpreter.objects import (
    Constant,
    Function,
    Object,
    Output,
    Parameters,
    Record,
    Scope,
    TrackedModel,
)
from kbitlint.source.interpreter.optimizers import is_optimizer, optimized

if TYPE_CHECKING:
    from kbitlint.facts.model_state import ModelState

#: Number of models or names that take as long to process as one step.
_CHEAP = 64


class Gradients(Interpreter):
    """The part of the interpreter that follows gradients from the outputs of models to backward passes."""

    def output(self, net: TrackedModel, arguments: Record | None = None) -> Output:
        """Return the output of a call of a model."""
        batch = batch_of(arguments) if arguments is not None else None
        if self.untracked or self.trail.gradients_off is not None:
            return Output(net, Origin.WITHOUT_GRAD)
        if net.state.silenced is not None and not _is_penalized(net.state):
            return Output(net, Origin.FORWARD)
        net.outputs += 1
        return Output(net, batch=batch)

    def computed(self, output: Output, name: str, arguments: Record) -> Object:
        """Return what a method of an output, or of a loss, returns: what is computed with other tensors may have a graph."""
        if output.origin is None:
            return output
        plain = all(isinstance(given.value, Constant) for given in arguments.items.values())
        return output if plain and not name.startswith("requires_grad") else UNKNOWN

    def training_call(self, name: str, arguments: Record) -> None:
        """Apply a function of torch, or of another library, that takes part in a training: an optimizer, a switch."""
        if is_optimizer(name):
            self._optimizer(arguments)
        elif name == "set_grad_enabled":
            first = next((given.value for given in arguments.items.values()), UNKNOWN)
            off = isinstance(first, Constant) and first.value is False
            self.trail.gradients_off = arguments.frozen(self.effort) if off else None
        elif name in ("LambdaLR", "ConstantLR"):
            self._factor(arguments)
        elif name in ("clip_grad_norm_", "clip_grad_value_"):
            call = arguments.frozen(self.effort)
            self.trail.calls[call.span] = call
        elif name in ("zeros_", "constant_"):
            self._initialize(name, arguments)
        elif name in ("GradScaler", "autocast"):
            self.trail.scaler = "float16" if name == "GradScaler" else self.trail.scaler or UNKNOWN

    def _initialize(self, name: str, arguments: Record) -> None:
        """Apply ``torch.nn.init``, which fills the parameters that a loop goes through."""
        given, value = arguments.get("tensor" if "tensor" in arguments.items else "0"), arguments.get("1")
        zero = name == "zeros_" or (isinstance(value, Constant) and value.value == 0)
        if isinstance(given, Parameters) and zero:
            self.zero_parts(given.net)

    def _optimizer(self, arguments: Record) -> None:
        optimizer = arguments.frozen(self.effort)
        self.trail.calls[optimizer.span] = optimizer
        for net in optimized(arguments):
            net.optimizer = optimizer if net.state.adapters is None else None
            net.in_optimizer = True
        given = arguments.get("params" if "params" in arguments.items else "0")
        if isinstance(given, Parameters) and given.once:
            if given.used:
                self.trail.step(Action.USED_UP, optimizer, given.net, given.net.state)
            given.used = True

    def _factor(self, arguments: Record) -> None:
        """Record a schedule that multiplies the rate with the result of a function, if that is a constant."""
        given = arguments.items.get("lr_lambda", arguments.items.get("1"))
        if given is not None and isinstance(given.value, Function):
            value = self.run(given.value, Record())
            factor = value if isinstance(value, Constant) else UNKNOWN
            arguments.items["lr_lambda"] = dataclasses.replace(given, value=factor)
        call = arguments.frozen(self.effort)
        self.trail.calls[call.span] = call

    def silence(self, net: TrackedModel, written: ast.expr | None, span: Span) -> None:
        """Record an assignment to the forward of a model, if it switches gradients off."""
        off = isinstance(written, ast.Call) and lets_no_gradient_through(written.func)
        made = self.value(written) if isinstance(written, ast.Name) else None
        if isinstance(made, Function) and not isinstance(made.node, ast.Lambda):
            off = any(map(lets_no_gradient_through, made.node.decorator_list))
        net.state = dataclasses.replace(net.state, silenced=Call("forward =", span) if off else None)

    def _backward(self, node: ast.Call, owner: Object) -> None:
        arguments = self.arguments(node, "backward")
        call = Call("backward", self.text.span(node))
        output = next((one for one in (owner, *(v.value for v in arguments.items.values())) if isinstance(one, Output)), None)
        if output is not None and output.origin is not None:
            by = output.net.state.silenced if output.origin is Origin.FORWARD else self.trail.gradients_off
            self.trail.losses.append(DeadLoss(call, output.origin, by))
            return
        if output is not None and output.passed is not None:
            self.trail.losses.append(DeadLoss(call, Origin.USED, output.passed))
        kept = arguments.get("retain_graph") if "retain_graph" in arguments.items else Constant(None)
        if output is not None and isinstance(kept, Constant) and not kept.value and arguments.complete:
            output.passed = output.passed or call
        net = output.net if output is not None else None
        if net is None:
            self.effort.spend(len(self.trail.nets) // _CHEAP)
            called = [net for net in self.trail.nets if net.outputs]
            trained = [net for net in called if net.in_optimizer] or called  # others give inputs: an encoder of texts
            net = trained[0] if len(trained) == 1 else None
        if net is not None:
            loop = self.loops[0] if self.loops else None
            batch = output.batch if output is not None else None
            self.trail.backward(call, net, loop, self._name_of(net), batch)

    def _name_of(self, net: TrackedModel) -> str:
        scope: Scope | None = self.scope
        while scope is not None:
            self.effort.spend(len(scope.names) // _CHEAP)
            name = next((name for name, value in scope.names.items() if value is net), "")
            if name:
                return name
            scope = scope.outer
        return ""


def _is_penalized(state: ModelState) -> bool:
    """Return whether the adapters add a penalty of their own to the loss: AdaLoRA's (PEFT 0.21, tuners/adalora/model.py)."""
    config = state.adapters.config if state.adapters is not None else None
    return isinstance(config, Call) and config.callee == "peft.AdaLoraConfig"
