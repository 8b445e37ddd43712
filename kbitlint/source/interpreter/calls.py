"""Calls: functions of the file are followed, those of the frameworks are looked up."""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Call, Span, Symbol
from kbitlint.source.interpreter.base import PathEnd
from kbitlint.source.interpreter.model_calls import ModelCalls
from kbitlint.source.interpreter.names import canonical, numbered, parameters_of
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
    TrackedModel,
    Trainer,
)
from kbitlint.source.interpreter.optimizers import is_optimizer, optimized
from kbitlint.source.interpreter.predicates import attribute_of, has_attribute
from kbitlint.upstream.calls import FOREIGN, FUNCTIONS, METHODS, TRAINERS, TRAINING_ARGUMENTS, WRAPPERS
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS
from kbitlint.upstream.versions import row

if TYPE_CHECKING:
    from kbitlint.upstream.calls import Api

_NO_MODEL = ("Tokenizer", "TokenizerFast", "Processor", "Config", "Extractor", "Scheduler")
#: packages and builtins whose functions leave a model's state alone, unless they are listed
_HARMLESS = ("torch", "bitsandbytes", "transformers", "datasets", "trl", "print", "isinstance", "len", "getattr", "hasattr")
_ATTACHED = ("base_model", "model", "module")


class Caller(ModelCalls):
    """Evaluates calls; running a function's body is added by its subclass."""

    def run(self, function: Function, arguments: Record) -> Object:
        """Follow a function of the file."""
        raise NotImplementedError

    def make(self, cls: Class, arguments: Record) -> Object:
        """An instance of a class of the file."""
        raise NotImplementedError

    def called(self, instance: Record) -> Object:
        """What runs where an instance is called."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------- arguments

    def arguments(self, node: ast.Call, callee: str, parameters: tuple[str, ...] = ()) -> Record:
        """The arguments of a call by name; positional ones are named by the parameters, or by their number."""
        made = Record(callee, span=self.text.span(node))
        looks = "clip_grad" in callee  # at their gradients only
        before = self.optimizer_claims() if looks else {}
        for number, argument in enumerate(node.args):
            if isinstance(argument, ast.Starred):
                self.value(argument.value)
                made.complete = False
                made.tail = self.text.span(argument).end
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
        if isinstance(function, Record):
            function = self.called(function)
        if isinstance(function, (Function, Class, TrackedModel)):
            return self._local(function, self.arguments(node, "", parameters_of(function)))
        self._escape(self.arguments(node, ""), "")
        return UNKNOWN

    def _local(self, function: Function | Class | TrackedModel, arguments: Record) -> Object:
        if isinstance(function, TrackedModel):
            if self.untracked:
                return UNKNOWN
            function.outputs += 1
            return Output(function)
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
            self.arguments(node, name)
            return owner
        if owner is UNKNOWN and self._changes_models(node, name):
            return self._model_method(node, name, self._adopted(func.value))
        self._escape(self.arguments(node, name), name)
        return UNKNOWN

    def _class_method(self, node: ast.Call, name: str, cls: Class) -> Object:
        """A method that is called on a class of the file itself."""
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
        """What a method of something does whose state is followed."""
        if isinstance(owner, TrackedModel):
            return self._model_method(node, name, owner)
        if isinstance(owner, Record):
            return self._items_method(node, name, owner)
        if isinstance(owner, Parameters):
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
        """A model that is seen here for the first time: whoever holds it holds this one from now on."""
        net = self.trail.adopt()
        while isinstance(node, ast.Attribute) and node.attr in _ATTACHED:
            node = node.value
        self.bind(node, net)
        return net

    def bind(self, target: ast.expr, value: Object) -> None:
        """Bind a name, an attribute or a tuple of them."""
        raise NotImplementedError

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
        if (
            name in TRAINING_ARGUMENTS
            or last in QUANTIZATION_CONFIGS
            or (library in ("peft", "torchao") and last.endswith("Config"))
        ):
            made = self.arguments(node, name)
            self.trail.calls[made.span] = made.frozen(self.effort)
            return made
        arguments = self.arguments(node, name)
        if name in WRAPPERS:
            return self._wrap(arguments, WRAPPERS[name])
        return self._plain(name, last, arguments, self.text.span(node))

    def _plain(self, name: str, last: str, arguments: Record, span: Span) -> Object:
        made = self._builtin(name, arguments, span)
        if made is not None:
            return made
        if last == "from_config" and name.startswith("transformers."):
            return self.trail.load(arguments.frozen(self.effort), quantized=False)
        if last in ("Namespace", "SimpleNamespace") and not numbered(arguments):
            return arguments
        if name in ("exit", "quit", "sys.exit", "os._exit"):
            raise PathEnd
        if name in (
            "argparse.ArgumentParser",
            "transformers.HfArgumentParser",
            "trl.TrlParser",
            "accelerate.Accelerator",
            "super",
        ):
            return self.special(name, arguments)
        if is_optimizer(last):
            for net in optimized(arguments):
                net.optimizer = arguments.frozen(self.effort) if net.state.adapters is None else None
        if last in ("GradScaler", "autocast"):
            self.trail.scaler = "float16" if last == "GradScaler" else self.trail.scaler or UNKNOWN
        if name.partition(".")[0] not in _HARMLESS:
            self._escape(arguments, last)
        return UNKNOWN

    def _builtin(self, name: str, arguments: Record, span: Span) -> Object | None:
        """What a builtin makes of values that are known, and the commands that run a function of the file."""
        first, second = ([given.value for given in arguments.items.values()] + [UNKNOWN, UNKNOWN])[:2]
        match name, first:
            case "list" | "tuple" | "iter" | "reversed" | "enumerate" | "dict", Parameters() | Submodule():
                return first
            case "dict", _:
                return UNKNOWN if numbered(arguments) else dataclasses.replace(arguments, callee="dict")
            case "vars", Record():
                return Record(items=dict(first.items), complete=first.complete, span=span)
            case "getattr" | "hasattr", _ if isinstance(second, Constant):
                return self._asked(name, first, str(second.value))
            case "filter", _ if isinstance(second, Parameters):
                return Parameters(second.net, filtered=True)
            case "filter", _ if isinstance(second, Submodule):
                return second
            case "fire.Fire" | "typer.run", Function():
                return self.run(first, Record(span=span))
            case _:
                return None

    def _asked(self, name: str, owner: Object, attribute: str) -> Object | None:
        """What ``getattr`` and ``hasattr`` give for an attribute whose name is known."""
        if name == "getattr" and isinstance(owner, Symbol):
            return Symbol(f"{owner.name}.{attribute}")
        if not isinstance(owner, TrackedModel):
            return None
        if name == "getattr":
            return attribute_of(owner, attribute)
        has = has_attribute(owner, attribute)
        return UNKNOWN if has is None else Constant(has)

    def special(self, name: str, arguments: Record) -> Object:
        """A parser of command lines, an Accelerator, or an instance as the class sees it that its own extends."""
        if name == "super":
            return self.scope.find("super()") or UNKNOWN
        made = dataclasses.replace(arguments, callee=name)
        if name == "accelerate.Accelerator":
            mixed = arguments.get("mixed_precision") if "mixed_precision" in arguments.items else UNKNOWN
            said = mixed.value if isinstance(mixed, Constant) else UNKNOWN
            self.trail.scaler = {"fp16": "float16", "bf16": "bfloat16"}.get(str(said), UNKNOWN if said is UNKNOWN else None)
        return made

    def _items_method(self, node: ast.Call, name: str, owner: Record) -> Object:
        raise NotImplementedError

    def _function(self, node: ast.Call, api: Api) -> Object:
        made = self.arguments(node, api.name, api.parameters)
        call = made.frozen(self.effort)
        self.trail.calls[call.span] = call
        if api.action is None:
            return made
        net = self._net_of(node, made)
        if api.action is Action.LOAD_ADAPTERS:
            self.trail.load_adapters(call, net)
        else:
            self.trail.apply(api, call, net)
        return net

    def _net_of(self, node: ast.Call, made: Record) -> TrackedModel:
        """The model that is handed to a function: the first argument, which may be seen here for the first time."""
        value = made.get("model")
        if isinstance(value, TrackedModel):
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
            made.items.setdefault("inference_mode", Entry(Constant(True), made.span, made.span))  # noqa: FBT003  # as above
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
        call = made.frozen(self.effort)
        self.trail.calls[call.span] = call
        net = self.trail.load(call)
        if library == "peft":
            self.trail.load_adapters(call, net)
        return net

    def _wrap(self, arguments: Record, how: str) -> Object:
        net = next((given.value for given in arguments.items.values() if isinstance(given.value, TrackedModel)), None)
        if net is None:
            return UNKNOWN
        call = arguments.frozen(self.effort)
        self.trail.calls[call.span] = call
        self.trail.step(Action.CONTEXT, call, net, net.state, how)
        return Sequence([net, UNKNOWN, UNKNOWN, UNKNOWN]) if how == "deepspeed" else net
