"""Methods of records: parsers of command lines, dicts, instances and an Accelerator.

A command line may change the values of argparse, and of dataclasses that HfArgumentParser reads.
"""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.values import TEXT, UNKNOWN, Span, Symbol
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.loaded_values import PATH
from kbitlint.source.interpreter.names import canonical, known_text, parameters_of
from kbitlint.source.interpreter.objects import (
    Class,
    Constant,
    Entry,
    Function,
    Object,
    Record,
    Sequence,
    TrackedModel,
)
from kbitlint.source.interpreter.predicates import held_by
from kbitlint.source.nodes import last_name
from kbitlint.upstream.calls import TRAINING_ARGUMENTS, TRAINING_SWITCHES

if TYPE_CHECKING:
    from collections.abc import Iterator

_FALSE = Constant(False)  # noqa: FBT003  # a value of the file
#: Number of classes or arguments that take as long to process as one step.
_CHEAP = 16
_PARSERS = ("parse_args_into_dataclasses", "parse_args_and_config", "parse_yaml_file", "parse_json_file", "parse_dict")


class CommandLine(Interpreter):
    """The part of the interpreter that applies methods of records, parsers among them."""

    def fields(self, cls: Class) -> Iterator[tuple[str, Entry]]:
        """Yield the fields of a dataclass, or the attributes of a class, with their defaults; inherited ones are first."""
        lineage = list(cls.lineage())
        self.effort.spend(len(lineage) // _CHEAP)
        for one, item in ((cls, item) for cls in reversed(lineage) for item in cls.node.body):
            self.effort.spend()
            target = item.target if isinstance(item, ast.AnnAssign) else None
            if isinstance(item, ast.Assign) and len(item.targets) == 1:
                target = item.targets[0]  # type: ignore[assignment]  # any expression may be assigned to
            written = item.value if isinstance(item, (ast.AnnAssign, ast.Assign)) else None
            if not isinstance(target, ast.Name) or written is None:
                continue
            if isinstance(written, ast.Call) and last_name(written.func) in ("field", "Field"):
                written = _default_of(written)
            if written is not None:
                with self.inside(one.scope):
                    entry = Entry(self.value(written), self.text.span(written), self.text.span(item))
                yield target.id, entry

    def _items_method(self, node: ast.Call, name: str, owner: Record) -> Object:
        if owner.callee == "argparse.ArgumentParser":
            return self._argparse(node, name, owner)
        if name in _PARSERS:
            return self._parsed(owner)
        if owner.callee == "accelerate.Accelerator":
            return self._accelerate(node, name)
        member = self.member(owner.of, name, owner) if owner.of is not None and owner.of.method(name) else UNKNOWN
        if isinstance(member, (Function, Class, TrackedModel)):
            return self._local(member, self.arguments(node, name, parameters_of(member)))
        arguments = self.arguments(node, name)
        held = owner.items[name].value if name in owner.items and owner.callee != "dict" else UNKNOWN
        if isinstance(held, (Function, Class, TrackedModel)):
            return self._local(held, arguments)
        if owner.callee == "dict" or owner.of is None:
            return self._plain_items_method(node, name, owner, arguments)
        fields = self.fields_of(name, owner)
        return self._plain_items_method(node, name, owner, arguments) if fields is None else fields

    def _plain_items_method(self, node: ast.Call, name: str, owner: Record, arguments: Record) -> Object:
        """Apply a method that no class of the file defines."""
        if owner.callee == "dict":
            return self.dict_method(name, owner, arguments)
        if name in ("read", "read_text", "open") and owner.callee in ("open", PATH):
            return owner
        if name in ("parameters", "named_parameters"):
            self._hand_out(owner)
        if name in ("train", "eval") and owner.of is not None and owner.of.base:
            for net in held_by(owner):
                self._model_method(node, name, net)
            return owner
        self._escape(arguments, name)
        return UNKNOWN

    @staticmethod
    def _hand_out(owner: Record) -> None:
        """Record that the script takes the parameters of each model that an object holds."""
        for net in held_by(owner):
            net.hand_out()

    def _argparse(self, node: ast.Call, name: str, owner: Record) -> Object:
        arguments = self.arguments(node, name)
        if name == "add_argument":
            names = [known_text(given.value) for key, given in arguments.items.items() if key.isdigit()]
            flag = next((text for text in names if text and text.startswith("--")), names[0] if names else None)
            dest = known_text(arguments.get("dest")) or (flag or "").lstrip("-").replace("-", "_")
            default = arguments.items.get("default")
            fixed = _is_fixed(arguments)
            switch = "action" in arguments.items and not fixed
            typed = "".join(ast.unparse(item.value) for item in node.keywords if item.arg == "type")
            if default is not None and typed not in ("", "str") and known_text(default.value) is not None:
                default = None  # argparse converts the text
            if dest:
                value = default.value if default is not None and not switch else UNKNOWN
                if arguments.get("required") == Constant(value=True) and not {"type", "action", "nargs"} & set(arguments.items):
                    value = TEXT
                value = value if fixed else self._launched(node, dest, _optional(value, dest))
                owner.items[f"--{dest}"] = Entry(value, arguments.span, arguments.span)
                if switch or arguments.get("type") == Symbol("bool"):
                    owner.switches |= {dest}
            return UNKNOWN
        if name in ("add_argument_group", "add_mutually_exclusive_group"):
            return owner
        if name in ("parse_args", "parse_known_args"):
            self.effort.spend(len(owner.items) // _CHEAP)
            values = {key[2:]: given for key, given in owner.items.items() if key.startswith("--")}
            space = Record("argparse.Namespace", values, complete=False, span=owner.span, from_command_line=True)
            space.switches = owner.switches
            return space if name == "parse_args" else Sequence([space, UNKNOWN])
        return UNKNOWN

    def _launched(self, node: ast.Call, name: str, default: Object) -> Object:
        """Return the value of an option that the command beside the script passes, else its default."""
        given = self.trail.launch.flags.get(name) if self.trail.launch is not None else None
        if not isinstance(given, Constant):
            return default if given is None else UNKNOWN
        written = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg in ("type", "action")}
        if "action" in written:
            return Constant(value=True) if written["action"].strip("\"'") == "store_true" else default
        match written.get("type", "str"):
            case "bool":
                return Constant(value=True)
            case "str":
                return Constant(str(given.value)) if isinstance(given.value, (str, int, float)) else UNKNOWN
            case "int" | "float":
                return given
            case _:
                return UNKNOWN

    def _parsed(self, owner: Record) -> Object:
        given = owner.get("0") if "0" in owner.items else owner.get("dataclass_types")
        classes = given.values if isinstance(given, Sequence) else [given]
        # return_remaining_strings=True adds one more item (transformers 5.23, hf_argparser.py)
        return Sequence([*(self._from_command_line(cls, owner) for cls in classes), UNKNOWN])

    def _from_command_line(self, cls: Object, owner: Record) -> Object:
        if isinstance(cls, Symbol):
            named = canonical(cls.name)
            switches = TRAINING_SWITCHES if named in TRAINING_ARGUMENTS else frozenset[str]()
            made = Record(named, complete=False, span=owner.span, from_command_line=True, switches=switches)
            made.items |= self._inherited_by_launch(owner, switches)
            return made
        if not isinstance(cls, Class):
            return UNKNOWN
        self.used.add(id(cls.node))
        base = cls.base if cls.base in TRAINING_ARGUMENTS else cls.node.name
        made = Record(base, complete=False, span=owner.span, of=cls, from_command_line=True)
        inherited = TRAINING_SWITCHES if base in TRAINING_ARGUMENTS else frozenset[str]()
        made.switches = inherited | frozenset(_switches(cls))
        if base in TRAINING_ARGUMENTS:
            made.items |= self._inherited_by_launch(owner, inherited)
        for name, given in self.fields(cls):
            value = self._set_by_launch(name, _optional(given.value, name))
            if value is not UNKNOWN and not isinstance(value, Sequence):
                made.items[name] = dataclasses.replace(given, value=value)
            else:
                made.items.pop(name, None)  # a default that is not known hides an inherited one
        return made

    def _inherited_by_launch(self, owner: Record, switches: frozenset[str]) -> dict[str, Entry]:
        """Return the training arguments of transformers that the command beside the script passes."""
        flags = self.trail.launch.flags if self.trail.launch is not None else {}
        names = (*switches, "deepspeed", "fsdp")
        return {name: Entry(value, owner.span, owner.span) for name, value in flags.items() if name in names}

    def _set_by_launch(self, name: str, default: Object) -> Object:
        return self.trail.launch.flags.get(name, default) if self.trail.launch is not None else default

    def _accelerate(self, node: ast.Call, name: str) -> Object:
        arguments = self.arguments(node, name)
        values = [given.value for key, given in arguments.items.items() if key.isdigit()]
        if name == "prepare":
            return values[0] if len(values) == 1 else Sequence(values)
        if name in ("unwrap_model", "prepare_model"):
            return values[0] if values else UNKNOWN
        if name.endswith("_state_pre_hook") and values and isinstance(values[0], Function):
            self._hook(values[0])
        if name == "backward":
            self._backward(node, UNKNOWN)
        return UNKNOWN

    def _hook(self, function: Function) -> None:
        """Follow a function that receives the prepared models when a state is saved or loaded."""
        nets: list[Object] = [net for net in self.trail.nets if net.state.load is not None]
        first = next(iter(parameters_of(function)), None)
        if first is not None:
            nowhere = Span(0, 0, 1)
            self.run(function, Record(items={first: Entry(Sequence(nets), nowhere, nowhere)}))


def _is_fixed(arguments: Record) -> bool:
    """Return whether a switch has the value by default that it would set, so that no command changes it."""
    sets = {"store_true": True, "store_false": False}
    action = known_text(arguments.get("action"))
    return action in sets and arguments.get("default") == Constant(value=sets[action])


def _optional(default: Object, name: str) -> Object:
    """Return the value of an option of the command line: its default, marked as one that the option changes.

    An option that is off by default exists because users set it: its value is unknown.
    """
    if default in (_FALSE, Constant(None)):
        return UNKNOWN
    return Constant(default.value, name) if isinstance(default, Constant) else default


def _switches(cls: Class) -> Iterator[str]:
    """Yield the fields of a dataclass that are annotated as bool."""
    for one in cls.lineage():
        for item in one.node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and last_name(item.annotation) == "bool":
                yield item.target.id


def _default_of(field: ast.Call) -> ast.expr | None:
    """Return the expression of a field's default: what ``default`` is, or a call of ``default_factory``; None without both."""
    given = {keyword.arg: keyword.value for keyword in field.keywords}
    factory = given.get("default_factory")
    if factory is not None:
        return factory.body if isinstance(factory, ast.Lambda) else ast.copy_location(ast.Call(factory, [], []), factory)
    pydantic = field.args[0] if last_name(field.func) == "Field" and field.args else None
    return given.get("default", pydantic)
