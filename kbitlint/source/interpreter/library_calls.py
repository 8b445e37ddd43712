"""Calls of functions of the frameworks, and of builtins.

``upstream/calls.py`` lists the frameworks' functions. Calls of functions of the file are in ``functions.py``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from typing import TYPE_CHECKING

from kbitlint.facts.source import Action
from kbitlint.facts.values import STORED, UNKNOWN, Span, Style
from kbitlint.source.interpreter import unsloth
from kbitlint.source.interpreter.arguments import with_stored_adapters
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.control_flow import PathEnd
from kbitlint.source.interpreter.loaded_values import LOADERS, loaded_value
from kbitlint.source.interpreter.names import canonical, numbered
from kbitlint.source.interpreter.objects import (
    Constant,
    Entry,
    Object,
    Record,
    Sequence,
    TrackedModel,
)
from kbitlint.source.interpreter.optimizers import is_optimizer
from kbitlint.source.interpreter.rank_devices import may_choose_device
from kbitlint.upstream.calls import FOREIGN, FUNCTIONS, RENAMED, RUNNERS, TRAINERS, TRAINING_ARGUMENTS, WRAPPERS
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS
from kbitlint.upstream.versions import row

if TYPE_CHECKING:
    from kbitlint.upstream.calls import Api

#: Packages and builtins whose functions do not change a model's state, unless a table lists them.
_HARMLESS = ("torch", "bitsandbytes", "transformers", "datasets", "trl", "print", "isinstance", "len", "getattr", "hasattr")
_NO_MODEL = ("Tokenizer", "TokenizerFast", "Processor", "Config", "Extractor", "Scheduler")


class LibraryCalls(Interpreter):
    """The part of the interpreter that looks up functions of the frameworks and evaluates builtins."""

    def _known(self, node: ast.Call, full: str) -> Object:
        name = canonical(full)
        self.trail.placed = self.trail.placed or may_choose_device(name)
        library, _, last = name.partition(".")
        if last.endswith("from_pretrained"):
            return self._from_pretrained(node, name)
        api = row(_rows_of(name), self.trail.versions)
        if api is None and name in RENAMED:
            api = next(api for api in FUNCTIONS if api.name == RENAMED[name])
        if api is not None:
            return self._function(node, api)
        if name in TRAINERS:
            given = next((item.value for item in node.keywords if item.arg == "model"), node.args[0] if node.args else None)
            return self.trainer(name, self.arguments(node, name, TRAINERS[name].parameters), base=self.is_base(given))
        if (
            name in TRAINING_ARGUMENTS
            or last in QUANTIZATION_CONFIGS
            or (library in ("peft", "torchao", "trl") and last.endswith("Config"))
        ):
            made = self.arguments(node, name)
            self._ask_bits(node, made)
            self.trail.calls[made.span] = made.frozen(self.effort)
            return made
        arguments = self.arguments(node, name)
        if name in RUNNERS:
            self.trail.calls[arguments.span] = arguments.frozen(self.effort)
        if name in WRAPPERS:
            return self._wrap(arguments, WRAPPERS[name])
        if name in LOADERS:
            return loaded_value(name, arguments, self.trail.beside)
        return self._plain(name, last, arguments, self.text.span(node))

    def _ask_bits(self, node: ast.Call, made: Record) -> None:
        """Follow both answers to whether a config asks for 4 or 8 bits, where the command line or a caller decides."""
        for keyword in node.keywords:
            if keyword.arg not in ("load_in_4bit", "load_in_8bit") or isinstance(keyword.value, ast.Constant):
                continue
            given = made.items[keyword.arg]
            other = made.get("load_in_8bit" if keyword.arg == "load_in_4bit" else "load_in_4bit")
            default = isinstance(given.value, Constant) and bool(given.value.flag) and isinstance(given.value.value, bool)
            if given.value is UNKNOWN or default:
                one = isinstance(other, Constant) and other.value is True and not other.flag
                made.items[keyword.arg] = dataclasses.replace(given, value=Constant(not one and self.decide(keyword.value)))

    def _plain(self, name: str, last: str, arguments: Record, span: Span) -> Object:
        made = self.builtin(name, arguments, span)
        if made is None and name.startswith(("torch.", "datasets.Dataset.")):
            made = self.tensor_call(last, arguments)
        if made is not None:
            return made
        if last.endswith(".from_config") and name.startswith("transformers."):
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
            "copy.deepcopy",
            "super",
            "os.getenv",
            "os.environ.get",
        ):
            return self.special(name, arguments)
        self.training_call(last, arguments)
        if name == "diffusers.training_utils.cast_training_params":
            self._cast_adapters(arguments)
            return UNKNOWN
        if name.partition(".")[0] not in _HARMLESS and not is_optimizer(last):
            self._unknown_function(arguments, last)
        return UNKNOWN

    def _cast_adapters(self, arguments: Record) -> None:
        """Apply ``cast_training_params`` of diffusers, which casts what trains, to float32 if no dtype is given."""
        given = arguments.get("model" if "model" in arguments.items else "0")
        dtype: Object = Constant("float32")
        if "dtype" in arguments.items or "1" in arguments.items:
            dtype = arguments.get("dtype" if "dtype" in arguments.items else "1")
        for net in given.values if isinstance(given, Sequence) else [given]:
            adapters = net.state.adapters if isinstance(net, TrackedModel) else None
            if isinstance(net, TrackedModel) and adapters is not None:
                value = dtype.value if isinstance(dtype, Constant) else UNKNOWN
                net.state = dataclasses.replace(net.state, adapters=dataclasses.replace(adapters, dtype=value))

    def _unknown_function(self, arguments: Record, name: str) -> None:
        """Apply a function of another file: its name tells that it resizes embeddings, or else it may change each model."""
        net = next((given.value for given in arguments.items.values() if isinstance(given.value, TrackedModel)), None)
        if net is None or not ("resize" in name and ("embed" in name or "token" in name)):
            self._escape(arguments, name)
            return
        call = arguments.frozen(self.effort)
        self.trail.calls[call.span] = call
        self.trail.step(Action.RESIZE, call, net, net.state, "tokens")

    def _function(self, node: ast.Call, api: Api) -> Object:
        made = self.arguments(node, api.name, api.parameters)
        self._ask_bits(node, made)
        call = made.frozen(self.effort)
        self.trail.calls[call.span] = call
        if api.action is None:
            return made
        net = self._net_of(node, made)
        if api.action is Action.LOAD_ADAPTERS:
            self.trail.load_adapters(call, net)
        else:
            self.trail.apply(api, call, net)
        return Sequence([net if name == "model" else made.get(name) for name in api.returns]) if api.returns else net

    def _net_of(self, node: ast.Call, made: Record) -> TrackedModel:
        """Return the model that a function receives; a first argument with an unknown value is bound to a new model."""
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
            # save_pretrained always writes "inference_mode": true (PEFT 0.21, peft_model.py)
            made.items.setdefault("inference_mode", Entry(Constant(True), made.span, made.span))  # noqa: FBT003  # a value of the file
            made.complete = False
            return made
        if library == "transformers" and cls.endswith("Config") and not cls.endswith("GenerationConfig"):
            made = self.arguments(node, f"transformers.{cls}", ("pretrained_model_name_or_path",))
            stored = Record(STORED, complete=False, span=made.span, style=Style.DICT)
            made.items.setdefault("quantization_config", Entry(stored, made.span, made.span))
            made.complete = False
            return made
        denoiser = library == "diffusers" and cls.endswith("Model") and ("Transformer" in cls or "UNet" in cls)
        if cls.endswith(_NO_MODEL) or library == "datasets" or (library == "diffusers" and not denoiser):
            call = self.arguments(node, name).frozen(self.effort)
            if "Pipeline" in cls:
                self.trail.calls[call.span] = call
            return UNKNOWN
        if library == "peft" and not cls.startswith("Auto"):
            return self._function(node, next(api for api in FUNCTIONS if api.name == "peft.PeftModel.from_pretrained"))
        if library == "unsloth" and cls.startswith("Fast"):
            return self._unsloth(node, name)
        made = self.arguments(node, name, ("pretrained_model_name_or_path",))
        if library not in ("transformers", "peft") and not denoiser:
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

    def _unsloth(self, node: ast.Call, name: str) -> Object:
        """Return the model and the tokenizer that unsloth loads."""
        call = self.arguments(node, name, unsloth.PARAMETERS).frozen(self.effort)
        self.trail.calls[call.span] = call
        net = self.trail.net(with_stored_adapters(call, unsloth.loaded(call), self.trail.beside))
        self.trail.step(Action.LOAD, call, net, net.state)
        return Sequence([net, UNKNOWN])

    def _wrap(self, arguments: Record, how: str) -> Object:
        net = next((given.value for given in arguments.items.values() if isinstance(given.value, TrackedModel)), None)
        if net is None:
            return UNKNOWN
        call = arguments.frozen(self.effort)
        self.trail.calls[call.span] = call
        self.trail.step(Action.CONTEXT, call, net, net.state, how)
        return Sequence([net, UNKNOWN, UNKNOWN, UNKNOWN]) if how == "deepspeed" else net


@functools.lru_cache(maxsize=4_096)
def _rows_of(name: str) -> list[Api]:
    """Return the rows of a function by its canonical name."""
    relative = name.startswith(".")
    return [api for api in FUNCTIONS if api.name == name or (relative and api.name.endswith(f".{name}"))]
