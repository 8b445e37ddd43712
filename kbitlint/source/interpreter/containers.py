"""Python's own containers and texts: what they hold after a script has made, copied, filled or taken them apart."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Span, Style
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.names import CONTAINERS, COPIES, DICTS, LISTS, known_text
from kbitlint.source.interpreter.objects import Constant, Entry, Object, Record, Sequence
from kbitlint.source.interpreter.predicates import truth_value

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

#: values that take as long to copy as one step
_CHEAP = 4
#: items up to which a comprehension is evaluated
_MOST = 160
_LONGEST_TEXT = 4096
_DEEPEST = 6
_PAIR = 2
#: methods of dataclasses, named tuples and models of pydantic that return their fields
_ASDICTS = frozenset(("_asdict", "model_dump", "to_container"))
_CONVERSIONS: Mapping[str, Callable[[str | float], bool | int | float | str]] = {"str": str, "int": int, "float": float}


class Containers(Interpreter):
    """The part of the interpreter that follows dicts, lists and texts."""

    def container(self, name: str, arguments: Record, span: Span) -> Object | None:
        """Return the container that a function of Python, or of a library of containers, makes; None if it makes none."""
        if name not in CONTAINERS:
            return None
        span = Span(span.start, span.start, span.line)  # an edit of what it makes has no place in the text
        values = [given.value for key, given in arguments.items.items() if key.isdigit()]
        first = values[0] if values else UNKNOWN
        self.effort.spend(len(arguments.items) // _CHEAP)
        if name in LISTS:
            listed = self._gone(first) if values else []
            return Sequence(listed, span) if listed is not None and len(arguments.items) <= 1 else None
        if name in COPIES:
            return self.copied(first, deep=name == "copy.deepcopy") if isinstance(first, (Record, Sequence)) else None
        if name in DICTS:
            return self._made_dict(values, arguments, span)
        if name not in _CONVERSIONS:
            return self._made_of(name, values, arguments, span)
        return _converted(name, first) if isinstance(first, Constant) and len(arguments.items) == 1 else None

    def _made_of(self, name: str, values: list[Object], arguments: Record, span: Span) -> Object | None:
        """Return what a function makes of several containers: ``zip``, ``fromkeys``, ``ChainMap``, ``defaultdict``."""
        match name:
            case "dict.fromkeys":
                keys, value = self._gone(values[0] if values else UNKNOWN), [*values, Constant(None)][1]
                texts = [known_text(key) for key in keys or ()]
                named = {text: Entry(value, span, span) for text in texts if text is not None}
                return Record(items=named, complete=len(named) == len(texts), span=span, style=Style.DICT) if keys else None
            case "collections.defaultdict":
                return self._made_dict(values[1:], dataclasses.replace(arguments, callee="dict"), span)
            case "collections.ChainMap":
                made = Record(span=span, style=Style.DICT)
                for value in reversed(values):
                    self.merge(made, value)
                return made
            case "zip":
                rows = [self._gone(value) for value in values]
                known = [row for row in rows if row is not None]
                return Sequence([Sequence(list(row)) for row in zip(*known, strict=False)]) if len(known) == len(rows) else None
            case _:
                return None

    def _made_dict(self, values: list[Object], arguments: Record, span: Span) -> Object | None:
        """Return the dict of a dict, or of pairs, and of keywords; None if its start is neither."""
        keywords = {} if arguments.callee.startswith("omegaconf.") else arguments.items
        named = {key: given for key, given in keywords.items() if not key.isdigit()}
        made = Record(complete=arguments.complete, span=span, style=Style.DICT)
        if values:
            start = values[0]
            if isinstance(start, Record) and start.callee == "dict":
                self.effort.spend(len(start.items) // _CHEAP)
                made = dataclasses.replace(start, items=dict(start.items), complete=start.complete and arguments.complete)
            elif isinstance(start, Sequence):
                self.effort.spend(len(start.values) // _CHEAP)
                pairs = [one.values for one in start.values if isinstance(one, Sequence) and len(one.values) == _PAIR]
                keys = [known_text(pair[0]) for pair in pairs]
                for key, pair in zip(keys, pairs, strict=True):
                    if key is not None:
                        made.items[key] = Entry(pair[1], span, span)
                made.complete = made.complete and len(made.items) == len(start.values)
            else:
                return None
        elif arguments.callee not in ("dict", "collections.OrderedDict"):
            return None
        else:
            made.style, made.tail, made.span = Style.CALL, arguments.tail, arguments.span
        made.items.update(named)
        return made

    def _gone(self, value: Object) -> list[Object] | None:
        """Return what a loop over a value goes through; None if that is not known."""
        if isinstance(value, Sequence):
            self.effort.spend(len(value.values) // _CHEAP)
            return list(value.values)
        if isinstance(value, Record) and value.callee == "dict" and value.complete:
            self.effort.spend(len(value.items) // _CHEAP)
            return [Constant(name) for name in value.items]
        return None

    def dict_method(self, name: str, owner: Record, arguments: Record) -> Object:
        """Apply a method of a dict, and return its value."""
        if name in ("items", "keys", "values"):
            return self._views(name, owner) if owner.complete else UNKNOWN
        if name == "update":
            self._update(owner, arguments)
        elif name in ("get", "pop", "setdefault"):
            return self._item(name, owner, arguments)
        elif name == "copy":
            return self.copied(owner, deep=False)
        elif name == "clear":
            owner.items.clear()
            owner.complete = True
        return UNKNOWN

    def _views(self, name: str, owner: Record) -> Sequence:
        self.effort.spend(len(owner.items) // _CHEAP)
        if name == "values":
            return Sequence([given.value for given in owner.items.values()])
        keys = [Constant(key) for key in owner.items]
        pairs = zip(keys, owner.items.values(), strict=True)
        return Sequence([*keys] if name == "keys" else [Sequence([key, given.value]) for key, given in pairs])

    def _update(self, owner: Record, arguments: Record) -> None:
        for argument, given in arguments.items.items():
            if argument == "0":
                pairs = self._made_dict([given.value], Record(), arguments.span)
                self.merge(owner, UNKNOWN if pairs is None else pairs)
            else:
                owner.items[argument] = given
        owner.complete = owner.complete and arguments.complete

    @staticmethod
    def _item(name: str, owner: Record, arguments: Record) -> Object:
        """Apply ``get``, ``pop`` or ``setdefault``, and return the item."""
        key = known_text(arguments.get("0"))
        if key is None:
            return UNKNOWN
        default = arguments.items.get("1")
        if key not in owner.items and owner.complete and default is not None and name == "setdefault":
            start = arguments.items["0"].span
            whole = Span(start.start, default.span.end, start.line)
            owner.items[key] = Entry(default.value, default.span, whole)
        value = owner.get(key)
        if key not in owner.items and owner.complete and name != "setdefault":
            value = default.value if default is not None else Constant(None)
        if name == "pop":
            owner.items.pop(key, None)
        return value

    def list_method(self, name: str, owner: Sequence, arguments: Record) -> Object:
        """Apply a method of a list or a set, and return its value.

        In a loop, which is followed for one round, the other items that it adds are unknown.
        """
        given = arguments.get("0")
        added: list[Object] = []
        match name:
            case "append" | "add":
                added = [given]
            case "extend" | "update":
                added = self._gone(given) or [UNKNOWN]
            case "insert":
                added = [arguments.get("1")]
            case "pop":
                return owner.values.pop() if owner.values and not arguments.items and not self.loops else self._blurred(owner)
            case "remove" | "discard":
                self.effort.spend(len(owner.values) // _CHEAP)
                if not self.loops and given in owner.values and all(isinstance(one, Constant) for one in owner.values):
                    owner.values.remove(given)
                    return UNKNOWN
                return self._blurred(owner)
            case "clear":
                owner.values.clear()
            case "copy":
                return Sequence(list(owner.values), owner.span)
            case _:
                self._escape(arguments, name)
                return UNKNOWN
        if name == "insert":
            at = given.value if isinstance(given, Constant) and isinstance(given.value, int) else len(owner.values)
            owner.values[at:at] = added
        else:
            self.effort.spend(len(added) // _CHEAP)
            owner.values += added
        return self._blurred(owner) if self.loops and UNKNOWN not in owner.values[:_MOST] else UNKNOWN

    def _blurred(self, owner: Sequence) -> Object:
        """Note that a list may hold other items than those that are known."""
        owner.values.append(UNKNOWN)
        return UNKNOWN

    def comprehended(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, over: Object) -> Object:
        """Return the list that a comprehension makes of a list or dict; UNKNOWN if its conditions do not decide it."""
        first = node.generators[0]
        listed = self._gone(over) if len(node.generators) == 1 and isinstance(over, (Sequence, Record)) else None
        if listed is None or len(listed) > _MOST:
            return UNKNOWN
        made: list[Object] = []
        for one in listed:
            value = self._in_round(first.target, one, first.ifs, node.elt)
            if value is None:
                return UNKNOWN
            made += value
        return Sequence(made, self.text.span(node))

    def _in_round(self, target: ast.expr, one: Object, tests: list[ast.expr], *parts: ast.expr) -> list[Object] | None:
        """Return the values of expressions in one round; empty if a condition leaves it out, None if none decides."""
        self.effort.spend()
        outer, self.scope = self.scope, type(self.scope)({}, self.scope)
        try:
            self.bind(target, one)
            known = [truth_value(self.value(test)) for test in tests]
            if None in known:
                return None
            return [self.value(part) for part in parts] if all(known) else []
        finally:
            self.scope = outer

    def filtered_dict(self, node: ast.DictComp, over: Record) -> Object:
        """Return the dict that a comprehension with conditions makes of another one; UNKNOWN if they do not decide it."""
        first, place = node.generators[0], self.text.span(node)
        made = Record(span=Span(place.start, place.start, place.line), style=Style.DICT)
        for name, given in over.items.items():
            found = self._in_round(first.target, Sequence([Constant(name), given.value]), first.ifs, node.key, node.value)
            key = known_text(found[0]) if found else None
            if found is None or (found and key is None):
                return UNKNOWN
            if found and key is not None:
                made.items[key] = Entry(found[1], given.span, given.whole)
        return made

    def as_dict(self, owner: Record, depth: int = 0) -> Record:
        """Return the fields of an instance as a dict, those of the instances in it too."""
        place = Span(owner.span.start, owner.span.start, owner.span.line)
        made = Record(complete=owner.complete, span=place, style=Style.DICT)
        self.effort.spend(len(owner.items) // _CHEAP)
        for name, given in owner.items.items():
            inner = given.value
            if isinstance(inner, Record) and inner.of is not None:
                inner = self.as_dict(inner, depth + 1) if depth < _DEEPEST else UNKNOWN
            made.items[name] = Entry(inner, given.span, given.whole)
        return made

    def copied(self, value: Object, *, deep: bool, depth: int = 0) -> Object:
        """Return a copy of a dict, list or instance; with ``deep``, of those in it too. Return any other value itself."""
        if depth > _DEEPEST:
            return UNKNOWN
        if isinstance(value, Sequence):
            self.effort.spend(len(value.values) // _CHEAP)
            return Sequence([self.copied(one, deep=deep, depth=depth + 1) if deep else one for one in value.values], value.span)
        if not isinstance(value, Record):
            return value
        self.effort.spend(len(value.items) // _CHEAP)
        inside = {
            name: self.copied(one.value, deep=deep, depth=depth + 1) if deep else one.value for name, one in value.items.items()
        }
        return dataclasses.replace(
            value, items={name: Entry(inside[name], one.span, one.whole) for name, one in value.items.items()}
        )

    def fields_of(self, name: str, owner: Record) -> Object | None:
        """Return what a method returns that gives the fields of an instance; None for every other method."""
        base = owner.of.base.rpartition(".")[2] if owner.of is not None else ""
        named = name in _ASDICTS or (name == "dict" and base == "BaseModel")
        return self.as_dict(owner) if named and owner.of is not None else None


def _converted(name: str, given: Constant) -> Object | None:
    if given.value is None or isinstance(given.value, bool) or len(str(given.value)) > _LONGEST_TEXT:
        return None
    try:
        return Constant(_CONVERSIONS[name](given.value), given.flag)
    except (ValueError, OverflowError):
        return None
