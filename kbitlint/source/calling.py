"""Calls: functions of the file are followed, those of the frameworks are looked up."""

from __future__ import annotations

import ast
import dataclasses
import functools
from typing import TYPE_CHECKING

from kbitlint.source.evaluate import Evaluator, PathEnd
from kbitlint.source.facts import UNKNOWN, Action, Call, Span, Symbol
from kbitlint.source.frameworks import (
    FOREIGN,
    FUNCTIONS,
    KEEPS_MODEL,
    METHODS,
    QUANTIZATION_CONFIGS,
    TRAINERS,
    TRAINING_ARGUMENTS,
    WRAPPERS,
)
from kbitlint.source.objects import (
    Class,
    Function,
    Given,
    Items,
    Known,
    Net,
    Object,
    Output,
    Parameters,
    Scope,
    Sequence,
    Trainer,
)
from kbitlint.source.versions import row

if TYPE_CHECKING:
    from kbitlint.source.frameworks import Api

_NO_MODEL = ("Tokenizer", "TokenizerFast", "Processor", "Config", "Extractor", "Scheduler")
_CASTS = {"half": "float16", "bfloat16": "bfloat16", "float": "float32"}
#: functions that only look
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
    "get_",
    "len",
    "info",
    "check",
    "assert",
)
#: packages and builtins whose functions leave a model's state alone, unless they are listed
_HARMLESS = ("torch", "bitsandbytes", "transformers", "datasets", "trl", "print", "isinstance", "len", "getattr", "hasattr")
_ATTACHED = ("base_model", "model", "module")


class Caller(Evaluator):
    """Evaluates calls; running a function's body is added by its subclass."""

    def run(self, function: Function, arguments: Items) -> Object:
        """Follow a function of the file."""
        raise NotImplementedError

    def make(self, cls: Class, arguments: Items) -> Object:
        """An instance of a class of the file."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------- arguments

    def arguments(self, node: ast.Call, callee: str, parameters: tuple[str, ...] = ()) -> Items:
        """The arguments of a call by name; positional ones are named by the parameters, or by their number."""
        made = Items(callee, span=self.text.span(node))
        for number, argument in enumerate(node.args):
            if isinstance(argument, ast.Starred):
                self.value(argument.value)
                made.complete = False
                made.tail = self.text.span(argument).end
                break
            span = self.text.span(argument)
            made.items[parameters[number] if number < len(parameters) else str(number)] = Given(
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
                made.items[keyword.arg] = Given(value, span, whole)
        return made

    # -------------------------------------------------------------------------------------------------- calls

    def _call(self, node: ast.Call) -> Object:
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value)
            if not isinstance(owner, Symbol):
                return self._method(node, node.func, owner)
            return self._known(node, f"{owner.name}.{node.func.attr}")
        function = self.value(node.func)
        if isinstance(function, Symbol):
            return self._known(node, function.name)
        if isinstance(function, (Function, Class, Net)):
            return self._local(function, self.arguments(node, "", _parameters(function)))
        self._escape(self.arguments(node, ""), "")
        return UNKNOWN

    def _local(self, function: Function | Class | Net, arguments: Items) -> Object:
        if isinstance(function, Net):
            function.outputs += 1
            return Output(function)
        return self.run(function, arguments) if isinstance(function, Function) else self.make(function, arguments)

    def _method(self, node: ast.Call, func: ast.Attribute, owner: Object) -> Object:
        name = func.attr
        if isinstance(owner, Net):
            return self._model_method(node, name, owner)
        if isinstance(owner, Items):
            return self._items_method(node, name, owner)
        if isinstance(owner, Parameters):
            self._set_grad(node, owner, name)
            return owner if name.endswith("_") else UNKNOWN
        if isinstance(owner, Trainer):
            self.arguments(node, name)
            if name == "train":
                self.trail.finish(owner)
            return UNKNOWN
        if name == "backward":
            self._backward(node, owner)
            return UNKNOWN
        if isinstance(owner, Output):
            self.arguments(node, name)
            return owner
        if owner is UNKNOWN and self._changes_models(node, name):
            return self._model_method(node, name, self._adopted(func.value))
        self._escape(self.arguments(node, name), name)
        return UNKNOWN

    def _changes_models(self, node: ast.Call, name: str) -> bool:
        if any(api.name == name and api.action in (Action.CHECKPOINT, Action.HOOK, Action.MERGE) for api in METHODS):
            return name != "add_adapter"
        return name == "parameters" and not node.args

    def _adopted(self, node: ast.expr) -> Net:
        """A model that is seen here for the first time: whoever holds it holds this one from now on."""
        net = self.trail.adopt()
        while isinstance(node, ast.Attribute) and node.attr in _ATTACHED:
            node = node.value
        self.bind(node, net)
        return net

    def bind(self, target: ast.expr, value: Object) -> None:
        """Bind a name, an attribute or a tuple of them."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------- models

    def _model_method(self, node: ast.Call, name: str, net: Net) -> Object:
        rows = [api for api in METHODS if api.name == name]
        api = row(rows, self.trail.versions)
        call = self.arguments(node, name, api.parameters if api is not None else ()).frozen()
        if api is not None:
            self.trail.calls[call.span] = call
            self.trail.apply(api, call, net)
            return net if name == "merge_and_unload" else UNKNOWN
        if name in ("parameters", "named_parameters"):
            return Parameters(net)
        if name in _CASTS or name in ("to", "type"):
            self._cast(call, name, net)
            return net
        if name == "requires_grad_":
            value = call.value("0", call.value("requires_grad", True))  # noqa: FBT003  # the default of the argument
            self._set_everything(call, net, value, filtered=False)
            return net
        if name in ("train", "eval"):
            mode = name == "train" and call.value("0", call.value("mode", True)) is not False  # noqa: FBT003  # as above
            after = dataclasses.replace(net.state, training_mode=mode)
            self.trail.step(Action.EVAL, call, net, after, mode)
            return net
        if name in ("gradient_checkpointing_disable", "activation_checkpointing_disable"):
            net.state = dataclasses.replace(
                net.state, checkpointing=dataclasses.replace(net.state.checkpointing, enabled=False)
            )
        if name in ("generate", "save_pretrained", "state_dict", "print_trainable_parameters", "named_modules", "modules"):
            return UNKNOWN
        if name in ("forward", "__call__"):
            return Output(net)
        return net if name in KEEPS_MODEL else UNKNOWN

    def _cast(self, call: Call, name: str, net: Net) -> None:
        value = _CASTS.get(name)
        if value is None:
            shown = [call.dtype("dtype"), *(call.dtype(argument.name) for argument in call.arguments)]
            value = next((item for item in shown if item in ("float16", "bfloat16", "float32")), None)
        if value is None:
            return
        adapters = net.state.adapters
        after = dataclasses.replace(
            net.state, dtype=value, adapters=None if adapters is None else dataclasses.replace(adapters, dtype=value)
        )
        self.trail.step(Action.CAST, call, net, after, value)

    def _set_everything(self, call: Call, net: Net, value: object, *, filtered: bool) -> None:
        state = net.state
        if filtered or value not in (True, False):
            if state.adapters is not None:
                state = dataclasses.replace(state, adapters=dataclasses.replace(state.adapters, trainable=None))
            net.state = dataclasses.replace(state, base_frozen=None)
            return
        if state.adapters is not None:
            adapters = dataclasses.replace(state.adapters, trainable=bool(value), frozen_by=None if value else call)
            state = dataclasses.replace(state, adapters=adapters)
        action = Action.UNFREEZE if value else Action.FREEZE
        self.trail.step(action, call, net, dataclasses.replace(state, base_frozen=not value))

    def set_grad(self, parameters: Parameters, value: Object, span: Span) -> None:
        """``parameter.requires_grad = value`` for every parameter of a model, or for some."""
        flag = value.value if isinstance(value, Known) else UNKNOWN
        self._set_everything(Call("requires_grad", span), parameters.net, flag, filtered=parameters.filtered)

    def _set_grad(self, node: ast.Call, parameters: Parameters, name: str) -> None:
        arguments = self.arguments(node, name, ("requires_grad",))
        if name == "requires_grad_":
            given = arguments.get("requires_grad") if arguments.items else Known(True)  # noqa: FBT003  # the default
            self.set_grad(parameters, given, self.text.span(node))

    def _backward(self, node: ast.Call, owner: Object) -> None:
        arguments = self.arguments(node, "backward")
        candidates = [owner, *(given.value for given in arguments.items.values())]
        net = next((value.net for value in candidates if isinstance(value, Output)), None)
        if net is None:
            called = [net for net in self.trail.nets if net.outputs]
            net = called[0] if len(called) == 1 else None
        if net is not None:
            loop = self.loops[0] if self.loops else None
            self.trail.backward(Call("backward", self.text.span(node)), net, loop, self._name_of(net))

    def _name_of(self, net: Net) -> str:
        scope: Scope | None = self.scope
        while scope is not None:
            name = next((name for name, value in scope.names.items() if value is net), "")
            if name:
                return name
            scope = scope.outer
        return ""

    def _escape(self, arguments: Items, name: str) -> None:
        """A model that is handed to something unknown may come back changed."""
        if name.startswith(_LOOKS):
            return
        for given in arguments.items.values():
            values = given.value.values if isinstance(given.value, Sequence) else [given.value]
            for value in values:
                if isinstance(value, Net):
                    value.state = dataclasses.replace(value.state, certain=False)

    # ------------------------------------------------------------------------------------------ known functions

    def _known(self, node: ast.Call, full: str) -> Object:
        name = canonical(full)
        library, _, last = name.partition(".")
        if last.endswith("from_pretrained"):
            return self._from_pretrained(node, name)
        api = row(
            [api for api in FUNCTIONS if api.name == name or (not library and api.name.endswith(f".{name}"))],
            self.trail.versions,
        )
        if api is not None:
            return self._function(node, api)
        if name in TRAINERS:
            return self.trainer(name, self.arguments(node, name, TRAINERS[name].parameters))
        if name in TRAINING_ARGUMENTS or last in QUANTIZATION_CONFIGS or (library == "peft" and last.endswith("Config")):
            made = self.arguments(node, name)
            self.trail.calls[made.span] = made.frozen()
            return made
        arguments = self.arguments(node, name)
        if name in WRAPPERS:
            return self._wrap(arguments, WRAPPERS[name])
        return self._plain(name, last, arguments, self.text.span(node))

    def _plain(self, name: str, last: str, arguments: Items, span: Span) -> Object:
        values = [given.value for given in arguments.items.values()]
        if last == "from_config" and name.startswith("transformers."):
            return self.trail.load(arguments.frozen(), quantized=False)
        if name in ("dict", "vars"):
            return dataclasses.replace(arguments, callee="dict") if name == "dict" and not _numbered(arguments) else UNKNOWN
        if (
            name == "getattr" and len(values) >= 2 and isinstance(values[0], Symbol) and isinstance(values[1], Known)
        ):  # (object, name)
            return Symbol(f"{values[0].name}.{values[1].value}")
        if name == "hasattr" and values and isinstance(values[0], Net):
            return Known(True)  # noqa: FBT003  # a value of the file
        if name in ("exit", "quit", "sys.exit", "os._exit"):
            raise PathEnd
        if name in ("argparse.ArgumentParser", "transformers.HfArgumentParser", "trl.TrlParser", "accelerate.Accelerator"):
            return self.special(name, arguments)
        if last in ("GradScaler", "autocast"):
            self.trail.scaler = "float16" if last == "GradScaler" else self.trail.scaler or UNKNOWN
        if name in ("fire.Fire", "typer.run") and values and isinstance(values[0], Function):
            return self.run(values[0], Items(span=span))
        if name.partition(".")[0] not in (
            "torch",
            "bitsandbytes",
            "transformers",
            "datasets",
            "trl",
            "print",
            "isinstance",
            "len",
        ):
            self._escape(arguments, last)
        return UNKNOWN

    def special(self, name: str, arguments: Items) -> Object:
        """A parser of command lines, or an Accelerator."""
        made = dataclasses.replace(arguments, callee=name)
        if name == "accelerate.Accelerator":
            mixed = arguments.get("mixed_precision") if "mixed_precision" in arguments.items else UNKNOWN
            said = mixed.value if isinstance(mixed, Known) else UNKNOWN
            self.trail.scaler = {"fp16": "float16", "bf16": "bfloat16"}.get(str(said), UNKNOWN if said is UNKNOWN else None)
        return made

    def _items_method(self, node: ast.Call, name: str, owner: Items) -> Object:
        raise NotImplementedError

    def _function(self, node: ast.Call, api: Api) -> Object:
        made = self.arguments(node, api.name, api.parameters)
        call = made.frozen()
        self.trail.calls[call.span] = call
        if api.action is None:
            return made
        net = self._net_of(node, made)
        if api.action is Action.LOAD_ADAPTERS:
            self.trail.load_adapters(call, net)
        else:
            self.trail.apply(api, call, net)
        return net

    def _net_of(self, node: ast.Call, made: Items) -> Net:
        """The model that is handed to a function: the first argument, which may be seen here for the first time."""
        value = made.get("model")
        if isinstance(value, Net):
            return value
        keyword = next((keyword.value for keyword in node.keywords if keyword.arg == "model"), None)
        written = node.args[0] if node.args else keyword
        return self._adopted(written) if written is not None else self.trail.adopt()

    def _from_pretrained(self, node: ast.Call, name: str) -> Object:
        library, _, rest = name.partition(".")
        cls = rest.partition(".")[0]
        if library == "peft" and cls.endswith("Config"):
            made = self.arguments(node, f"peft.{cls}", ("pretrained_model_name_or_path",))
            # save_pretrained always writes "inference_mode": true
            made.items.setdefault("inference_mode", Given(Known(True), made.span, made.span))  # noqa: FBT003  # as above
            made.complete = False
            return made
        if cls.endswith(_NO_MODEL) or library in ("datasets", "diffusers"):
            self.arguments(node, name)
            return UNKNOWN
        if library == "peft" and not cls.startswith("Auto"):
            return self._function(node, next(api for api in FUNCTIONS if api.name == "peft.PeftModel.from_pretrained"))
        made = self.arguments(node, name, ("pretrained_model_name_or_path",))
        if library not in ("transformers", "peft"):
            net = self.trail.adopt()
            if library in FOREIGN:
                return Sequence([net, UNKNOWN])
            return net
        call = made.frozen()
        self.trail.calls[call.span] = call
        net = self.trail.load(call)
        if library == "peft":
            self.trail.load_adapters(call, net)
        return net

    def trainer(self, name: str, arguments: Items) -> Object:
        """A Trainer, with what building it does to the model."""
        api = TRAINERS[name]
        call = arguments.frozen()
        self.trail.calls[call.span] = call
        model = arguments.get("model")
        given = arguments.get("args")
        known = given if isinstance(given, Items) else None
        if known is None and (given is not UNKNOWN or "args" in arguments.items or not arguments.complete):
            known = Items(api.arguments, complete=False, span=call.span)
        net = model if isinstance(model, Net) else self._model_by_name(model, known)
        trainer = Trainer(call, net, known, api)
        if net is not None and api.attaches:
            self._attach_in_trainer(arguments, call, net, name)
        self.trail.trainers.append(trainer)
        return trainer

    def _attach_in_trainer(self, arguments: Items, call: Call, net: Net, name: str) -> None:
        api = TRAINERS[name]
        config = arguments.get("peft_config") if "peft_config" in arguments.items else Known(None)
        if config == Known(None) and not arguments.complete:
            config = UNKNOWN
        if config != Known(None):
            attaching = next(item for item in FUNCTIONS if item.name == "peft.get_peft_model")
            if config is UNKNOWN:
                net.state = dataclasses.replace(net.state, certain=False)
            else:
                self.trail.apply(attaching, call, net)
        adapters = net.state.adapters
        if adapters is not None and net.state.kbit and api.adapter_dtype:
            net.state = dataclasses.replace(net.state, adapters=dataclasses.replace(adapters, dtype=api.adapter_dtype))

    def _model_by_name(self, model: Object, known: Items | None) -> Net | None:
        """TRL loads a model that is named, with ``model_init_kwargs`` of the arguments."""
        if not (isinstance(model, Known) and isinstance(model.value, str)):
            return None
        kwargs = known.get("model_init_kwargs") if known is not None else UNKNOWN
        if not isinstance(kwargs, Items):
            return self.trail.adopt()
        return self.trail.load(kwargs.frozen())

    def _wrap(self, arguments: Items, how: str) -> Object:
        net = next((given.value for given in arguments.items.values() if isinstance(given.value, Net)), None)
        if net is None:
            return UNKNOWN
        call = arguments.frozen()
        self.trail.calls[call.span] = call
        self.trail.step(Action.CONTEXT, call, net, net.state, how)
        return Sequence([net, UNKNOWN, UNKNOWN, UNKNOWN]) if how == "deepspeed" else net


def canonical(full: str) -> str:
    """A full name as library and last part, with the class of a ``from_pretrained``: what imports are re-exported as."""
    if full in ("torch.utils.checkpoint.checkpoint", "torch.utils.checkpoint.checkpoint_sequential"):
        return f"torch.{full.rpartition('.')[2]}"
    parts = full.split(".")
    if parts[0] == "torch" and parts[-1] == "checkpoint":
        return full
    if len(parts) > 2 and parts[-1] in ("from_pretrained", "from_config"):  # library, class, method
        return ".".join((parts[0], parts[-2], parts[-1]))
    if parts[0] in ("transformers", "peft", "trl", "torch", "accelerate", "deepspeed", "unsloth") and len(parts) > 1:
        return f"{parts[0]}.{parts[-1]}"
    if len(parts) == 1 or (len(parts) == 2 and parts[-1].endswith("from_pretrained")):  # class and method
        return _homes().get(parts[0], parts[0]) + "".join(f".{part}" for part in parts[1:])
    return full


@functools.cache
def _homes() -> dict[str, str]:
    """Where names live that a star import, or another cell, has bound."""
    known = (*(api.name for api in FUNCTIONS), *TRAINERS, *TRAINING_ARGUMENTS)
    return {name.rpartition(".")[2]: name for name in known if name != "torch.checkpoint"} | {
        name: f"transformers.{name}" for name in QUANTIZATION_CONFIGS
    }


def _parameters(function: Function | Class | Net) -> tuple[str, ...]:
    if isinstance(function, Net):
        return ()
    node = function.node if isinstance(function, Function) else function.method("__init__")
    if node is None or isinstance(node, ast.ClassDef):
        return _fields(function) if isinstance(function, Class) else ()
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    bound = isinstance(function, Class) or function.receiver is not None
    return tuple(names[1:] if bound else names)


def _fields(cls: Class) -> tuple[str, ...]:
    return tuple(
        item.target.id for item in cls.node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    )


def _numbered(items: Items) -> bool:
    return any(name.isdigit() for name in items.items)


def known_text(value: Object) -> str | None:
    """A text constant, or None."""
    return value.value if isinstance(value, Known) and isinstance(value.value, str) else None
