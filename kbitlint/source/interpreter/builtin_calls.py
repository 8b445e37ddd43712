"""Calls of Python's own functions and of small helpers of its library: ``getattr``, ``vars``, paths, files, parsers."""

from __future__ import annotations

import dataclasses

from kbitlint.facts.values import UNKNOWN, Span, Symbol
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.loaded_values import folder_of, is_open_file, joined_path
from kbitlint.source.interpreter.names import known_text
from kbitlint.source.interpreter.objects import Constant, Entry, Function, Object, Parameters, Record, Submodule, TrackedModel
from kbitlint.source.interpreter.predicates import attribute_of, has_attribute

#: Functions that make a path of another one, and the one that gives the names of the file.
_PATHS = ("pathlib.Path", "os.path.join", "os.path.dirname", "os.path.abspath", "os.path.realpath", "globals")
#: Number of names that take as long to process as one step.
_CHEAP = 64

#: how the variables end that a launcher sets for each process, so that their defaults are no values
_OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "PROCID", "LOCALID", "NTASKS")


class BuiltinCalls(Interpreter):
    """The part of the interpreter that evaluates builtins."""

    def _file(self, name: str, arguments: Record) -> Object:
        """Return the value that ``torch.load`` reads if the path has written it with ``torch.save``."""
        file = arguments.get("f" if "f" in arguments.items else "1" if name == "torch.save" else "0")
        if not (isinstance(file, Constant) and isinstance(file.value, str)):
            return UNKNOWN
        written = arguments.get("obj" if "obj" in arguments.items else "0")
        if name == "torch.load":
            return self.trail.files.get(file.value, UNKNOWN)
        self.trail.files[file.value] = written
        return UNKNOWN

    def builtin(self, name: str, arguments: Record, span: Span) -> Object | None:  # one return a function
        """Return the value of a builtin with known arguments, or of a command that runs a function of the file.

        None if the function is another one, or if its value depends on unknown arguments.
        """
        first, second = ([given.value for given in arguments.items.values()] + [UNKNOWN, UNKNOWN])[:2]
        match name, first:
            case "list" | "tuple" | "iter" | "reversed" | "enumerate" | "dict", Parameters() | Submodule():
                return first.listed() if isinstance(first, Parameters) and name in ("list", "tuple", "dict") else first
            case "torch.save" | "torch.load", _:
                return self._file(name, arguments)
            case "vars" | "dataclasses.asdict", Record():
                return self.as_dict(first)
            case "open" | "functools.partial", _:
                return arguments if name != "open" or is_open_file(name, arguments) else None
            case "getattr" | "hasattr", _ if isinstance(second, Constant):
                return self._asked(name, first, str(second.value))
            case "filter", _ if isinstance(second, (Parameters, Submodule)):
                return Parameters(second.net, filtered=True, once=True) if isinstance(second, Parameters) else second
            case "fire.Fire" | "typer.run", Function():
                return self.run(first, Record(span=span))
            case _:
                return self._path(name, arguments, span) if name in _PATHS else self.container(name, arguments, span)

    def _path(self, name: str, arguments: Record, span: Span) -> Object | None:
        """Return the path that a function of ``os.path`` makes, or the names of the file; None if the path is not known."""
        first = next((given.value for given in arguments.items.values()), UNKNOWN)
        match name:
            case "pathlib.Path" | "os.path.join":
                return joined_path([given.value for given in arguments.items.values()], span)
            case "os.path.dirname":
                return folder_of(first, span)
            case "globals":
                self.effort.spend(len(self.module.names) // _CHEAP)
                names = {key: Entry(value, span, span) for key, value in self.module.names.items()}
                return Record(items=names, complete=False)
            case _:
                return first if isinstance(first, (Constant, Record)) else None

    def _asked(self, name: str, owner: Object, attribute: str) -> Object | None:
        """Return the value of ``getattr`` or ``hasattr`` for an attribute with a known name.

        None if the owner is neither a model nor, for ``getattr``, a symbol.
        """
        if name == "getattr" and isinstance(owner, Symbol):
            return Symbol(f"{owner.name}.{attribute}")
        if name == "getattr" and isinstance(owner, Record) and attribute in owner.items:
            return owner.items[attribute].value
        if not isinstance(owner, TrackedModel):
            return None
        if name == "getattr":
            return attribute_of(owner, attribute)
        has = has_attribute(owner, attribute)
        return UNKNOWN if has is None else Constant(has)

    def special(self, name: str, arguments: Record) -> Object:
        """Return a parser of command lines, an Accelerator, a copy of a model, a variable's default, or ``super()``'s value."""
        if name == "copy.deepcopy":
            (first, *_) = [*(given.value for given in arguments.items.values()), UNKNOWN]
            return self.trail.net(first.state) if isinstance(first, TrackedModel) else UNKNOWN
        if name.startswith("os."):
            key, default = [*(known_text(given.value) for given in arguments.items.values()), None, None][:2]
            launched = isinstance(key, str) and key.endswith(_OF_LAUNCHERS)
            return UNKNOWN if default is None or launched else Constant(default, f"${key}")
        if name == "super":
            return self.scope.find("super()") or UNKNOWN
        made = dataclasses.replace(arguments, callee=name)
        if name == "accelerate.Accelerator":
            call = made.frozen(self.effort)
            self.trail.calls[call.span] = call
            mixed = arguments.get("mixed_precision") if "mixed_precision" in arguments.items else UNKNOWN
            said = mixed.value if isinstance(mixed, Constant) else UNKNOWN
            self.trail.scaler = {"fp16": "float16", "bf16": "bfloat16"}.get(str(said), UNKNOWN if said is UNKNOWN else None)
        return made
