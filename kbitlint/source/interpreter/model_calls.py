"""Methods of models, assignments to their parameters, and Trainers.

This part finds the change that such a call makes to a model. ``path_state.py`` applies it.
"""

from __future__ import annotations

import ast
import dataclasses

from kbitlint.facts.model_state import Adapters, CheckpointingState, merged, without_adapters
from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Call, Span
from kbitlint.source.interpreter.arguments import cast_dtype, disabled
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.names import CASTS
from kbitlint.source.interpreter.objects import (
    Constant,
    Entry,
    Object,
    Parameters,
    Record,
    Scope,
    Sequence,
    Submodule,
    TrackedModel,
    Weights,
)
from kbitlint.source.interpreter.unsloth import is_unsloth
from kbitlint.upstream.calls import KEEPS_MODEL, LOOKS_AT_MODEL, METHODS, UNSLOTH_METHODS
from kbitlint.upstream.versions import row

#: Number of models or names that take as long to process as one step.
_CHEAP = 64
_MODULES = (
    "modules",
    "named_modules",
    "children",
    "named_children",
    "get_submodule",
    "get_parameter",
    "get_input_embeddings",
    "get_output_embeddings",
)
#: Starts of the names of functions that only read a model.
_LOOKS = (
    "print",
    "count",
    "find",
    "show",
    "log",
    "summary",
    "eval",
    "test",
    "save",
    "num_",
    "named_",
    "get_",
    "len",
    "info",
    "check",
    "assert",
)

#: Methods of PEFT's models that add an adapter beside the active one, with their parameters (PEFT 0.21, peft_model.py).
_ADDS = {"add_adapter": ("adapter_name", "peft_config"), "add_weighted_adapter": ("adapters", "weights", "adapter_name")}

#: Methods of PEFT's models, and of transformers' own, that switch all adapters off or on.
_SWITCHES = {
    "disable_adapter_layers": False,
    "disable_adapters": False,
    "enable_adapter_layers": True,
    "enable_adapters": True,
}

_OF_ADAPTERS = ("unload", "set_adapter", "unmerge_adapter", "delete_adapter")

NOWHERE = Span(0, 0, 1)


class ModelCalls(Interpreter):
    """The part of the interpreter that applies calls of methods of models, and Trainers."""

    def _model_method(self, node: ast.Call, name: str, net: TrackedModel) -> Object:
        # PEFT 0.21 (peft_model.py) and transformers (integrations/peft.py) share the name add_adapter. PEFT's adapter is idle
        # until set_adapter.
        idle = name in _ADDS and net.state.adapters is not None and net.state.adapters.by.callee != name
        rows = [api for api in METHODS if api.name == name and not idle]
        api = row(rows, self.trail.versions)
        call = self.arguments(node, name, api.parameters if api is not None else _ADDS[name] if idle else ()).frozen(
            self.effort
        )
        if api is not None:
            self.trail.calls[call.span] = call
            self.trail.apply(api, call, net, by_base_name=self.is_base(getattr(node.func, "value", None)))
            return net if name == "merge_and_unload" else UNKNOWN
        if name in ("parameters", "named_parameters"):
            net.hand_out()
            return Parameters(net, once=True)
        if name in _MODULES:
            return Submodule(net)
        if name in CASTS or name in ("to", "type"):
            self._cast(call, name, net)
            return net
        if name == "requires_grad_":
            value = call.value("0", call.value("requires_grad", True))  # noqa: FBT003  # the default of the argument
            self._set_everything(call, net, value, filtered=False)
            return net
        if name in ("train", "eval"):
            mode = name == "train" and call.value("0", call.value("mode", True)) is not False  # noqa: FBT003  # the default of the argument
            after = dataclasses.replace(net.state, training_mode=mode)
            self.trail.step(Action.EVAL, call, net, after, mode)
            return net
        if idle:
            self.trail.step(Action.ADD, call, net, net.state)
            return net
        return self._other_method(call, name, net)

    def _adapters_method(self, call: Call, name: str, net: TrackedModel, adapters: Adapters) -> Object:
        """Apply a method that switches adapters off or on, activates some of them, or removes them.

        Adapters that are off are frozen too, and biases of the base that train beside them are not. When they are switched on
        again, the active ones require gradients.
        """
        if name == "unload":
            self.trail.step(Action.UNLOAD, call, net, without_adapters(net.state))
            return net
        if name == "unmerge_adapter":
            net.state = merged(net.state, None)
            return UNKNOWN
        if name == "delete_adapter":  # PEFT activates one of those that are left
            self.trail.step(Action.ACTIVATE, call, net, dataclasses.replace(net.state, certain=False))
            return UNKNOWN
        if name == "set_adapter":
            after = net.state if adapters.trainable else dataclasses.replace(net.state, certain=False)
            self.trail.step(Action.ACTIVATE, call, net, after)
            return UNKNOWN
        on = _SWITCHES[name]
        others = isinstance(adapters.config, Call) and adapters.config.value("bias", "none") not in (UNKNOWN, "none")
        off = None if others else False  # biases of the base learn on beside adapters that are off
        switched = dataclasses.replace(adapters, trainable=on or off, frozen_by=None if on else call)
        self.trail.step(Action.FREEZE, call, net, dataclasses.replace(net.state, adapters=switched))
        return UNKNOWN

    def part_method(self, node: ast.Call, name: str, part: Submodule) -> Object:
        """Apply a method of a module of a model."""
        arguments = self.arguments(node, name)
        if name == "set_scale":
            self._scale(arguments, part)
        elif name in ("gradient_checkpointing_enable", "activation_checkpointing_enable"):
            part.net.state = dataclasses.replace(part.net.state, checkpointing=CheckpointingState(None))
        elif name == "requires_grad_":
            self._set_everything(arguments.frozen(self.effort), part.net, UNKNOWN, filtered=True)
        elif name in ("parameters", "named_parameters"):
            return Parameters(part.net, filtered=True)
        elif name in CASTS or name in ("to", "type"):
            self.cast_part(
                part.net,
                getattr(node.func, "value", node),
                cast_dtype(arguments.frozen(self.effort), name),
                self.text.span(node),
            )
            return part
        elif name in (*_MODULES, "cuda", "cpu", "train", "eval"):
            return part
        self._escape(arguments, name)
        return UNKNOWN

    def _scale(self, arguments: Record, part: Submodule) -> None:
        """Apply ``set_scale`` of the layers with adapters, which a loop goes through."""
        adapters = part.net.state.adapters
        given = arguments.get("scale" if "scale" in arguments.items else "1")
        if adapters is not None and isinstance(given, Constant) and not isinstance(given.value, bool):
            muted = arguments.frozen(self.effort) if given.value == 0 else None
            part.net.state = dataclasses.replace(part.net.state, adapters=dataclasses.replace(adapters, muted=muted))

    def weights_method(self, node: ast.Call, name: str, net: TrackedModel) -> Object:
        """Return the state dict of a model, or record that it gets that of a model that the path has followed."""
        arguments = self.arguments(node, name, ("state_dict", "strict", "assign") if name == "load_state_dict" else ())
        weights = arguments.get("state_dict")
        if name == "state_dict":
            return Weights(net.state)
        if isinstance(weights, Weights):
            source = weights.state.load if weights.state.packed else None
            self.trail.step(Action.STATE, arguments.frozen(self.effort), net, net.state, source)
        else:
            net.state = dataclasses.replace(net.state, certain=False)
        return UNKNOWN

    def _other_method(self, call: Call, name: str, net: TrackedModel) -> Object:
        if net.state.adapters is not None and (name in _SWITCHES or name in _OF_ADAPTERS):
            return self._adapters_method(call, name, net, net.state.adapters)
        if name in UNSLOTH_METHODS and is_unsloth(net.state):
            called = dataclasses.replace(call, callee=f"unsloth.{name}")
            self.trail.calls[called.span] = called
            return UNKNOWN
        if name in ("save_pretrained", "push_to_hub"):
            folder = call.value("save_directory", call.value("repo_id", UNKNOWN))
            self.trail.step(Action.SAVE, call, net, net.state, call.value("0", folder))
        net.state = disabled(name, net.state)
        if name == "enable_gradient_checkpointing":  # of diffusers, whose class chooses use_reentrant
            net.state = dataclasses.replace(net.state, checkpointing=CheckpointingState(None))
            return UNKNOWN
        if name in LOOKS_AT_MODEL:
            return UNKNOWN
        if name in ("forward", "__call__"):
            return self.output(net, None)
        if name in KEEPS_MODEL or name == "dequantize":
            self._move_or_unpack(call, name, net)
            return net
        if not name.startswith((*_LOOKS, "disable_input")) and not name.endswith("_disable"):
            net.state = dataclasses.replace(net.state, certain=False)
        return UNKNOWN

    def _move_or_unpack(self, call: Call, name: str, net: TrackedModel) -> None:
        if name == "cuda":
            self.trail.step(Action.MOVE, call, net, net.state)
        elif name == "dequantize":  # the linear layers become plain ones, in place
            bits = net.state.bits if net.state.method == "bitsandbytes" else None
            net.state = dataclasses.replace(net.state, method=None, bits=None, quantization=None, unpacked=bits)

    def _cast(self, call: Call, name: str, net: TrackedModel) -> None:
        value = cast_dtype(call, name)
        if value is None:
            if name == "to" and call.arguments:
                self.trail.step(Action.MOVE, call, net, net.state)
            return
        adapters = net.state.adapters
        after = dataclasses.replace(
            net.state,
            dtype=value,
            widened=None,
            recast=False,
            adapters=None if adapters is None else dataclasses.replace(adapters, dtype=value),
        )
        self.trail.step(Action.CAST, call, net, after, value)

    def _set_everything(self, call: Call, net: TrackedModel, value: object, *, filtered: bool) -> None:
        state = net.state
        if filtered or value not in (True, False):
            if state.adapters is not None:
                state = dataclasses.replace(state, adapters=dataclasses.replace(state.adapters, trainable=None))
            net.state = dataclasses.replace(state, base_frozen=None, chosen=filtered)
            return
        if state.adapters is not None:
            adapters = dataclasses.replace(state.adapters, trainable=bool(value), frozen_by=None if value else call)
            state = dataclasses.replace(state, adapters=adapters)
        action = Action.UNFREEZE if value else Action.FREEZE
        self.trail.step(action, call, net, dataclasses.replace(state, base_frozen=not value))

    def set_grad(self, parameters: Parameters, value: Object, span: Span, written: ast.expr | None = None) -> None:
        """Apply ``parameter.requires_grad = value`` to all parameters of a model, or to the filtered ones."""
        self.set_copies(parameters.net, value, span, written)
        by_name = parameters.filtered or not isinstance(value, Constant)
        if by_name and self.set_parts(parameters.net, value, span, written):
            return
        flag = value.value if isinstance(value, Constant) else UNKNOWN
        self._set_everything(Call("requires_grad", span), parameters.net, flag, filtered=parameters.filtered)

    def _set_grad(self, node: ast.Call, parameters: Parameters, name: str) -> None:
        arguments = self.arguments(node, name, ("requires_grad",))
        if name == "requires_grad_":
            given = arguments.get("requires_grad") if arguments.items else Constant(True)  # noqa: FBT003  # the default
            self.set_grad(parameters, given, self.text.span(node))

    def give_away(self, node: ast.Call) -> None:
        """Make the state of each model that a call outside the path receives uncertain."""
        written = [*node.args, *(keyword.value for keyword in node.keywords)]
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if isinstance(node.func, ast.Attribute):
            written.append(node.func.value)
            name = node.func.attr
        values = (self.scope.find(item.id) for item in written if isinstance(item, ast.Name))
        made = {str(number): Entry(value, NOWHERE, NOWHERE) for number, value in enumerate(values) if value is not None}
        if name not in LOOKS_AT_MODEL and name not in KEEPS_MODEL:
            self._escape(Record("", made), name)

    def _escape(self, arguments: Record, name: str) -> None:
        """Make the state of each model among the arguments of an unknown function uncertain: the function may change it.

        If the name of the function starts with one of ``_LOOKS``, the function only reads the model.
        """
        if name.startswith(_LOOKS):
            return
        for given in arguments.items.values():
            values = given.value.values if isinstance(given.value, Sequence) else [given.value]
            for value in values:
                if isinstance(value, TrackedModel):
                    value.state = dataclasses.replace(value.state, certain=False)

    def is_base(self, node: ast.expr | None) -> bool:
        """Return whether an expression is a name that holds the base model of a model with adapters."""
        scope: Scope | None = self.scope if isinstance(node, ast.Name) else None
        while scope is not None and isinstance(node, ast.Name):
            if node.id in scope.names:
                return (id(scope), node.id) in self.trail.base_names
            scope = scope.outer
        return False
