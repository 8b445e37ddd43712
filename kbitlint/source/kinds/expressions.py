"""The expressions of a script, with the kind of each, and the faults of what they use."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.kinds.arguments import ENCODING
from kbitlint.source.kinds.calls import CallFaults
from kbitlint.source.kinds.kind import Kind, joined
from kbitlint.source.kinds.tokenizers import after_assignment, after_call
from kbitlint.source.nodes import children, walk
from kbitlint.upstream.objects.lookup import absent_member
from kbitlint.upstream.objects.returns import SPLITS, TOKENIZER
from kbitlint.upstream.removed_attributes import removed_attribute

if TYPE_CHECKING:
    from collections.abc import Mapping

#: attribute of a class -> the kind of its value
_ATTRIBUTES: Mapping[tuple[str, str], str] = {
    ("transformers.TrainOutput", "metrics"): "dict",
    ("transformers.TrainOutput", "training_loss"): "float",
    ("transformers.PredictionOutput", "metrics"): "dict",
    ("transformers.Trainer", "state"): "transformers.TrainerState",
    ("datasets.Dataset", "column_names"): "list",
}
#: libraries that leave a tokenizer as it is, and Python's own functions
_KEEPERS = frozenset(("transformers", "datasets", "peft", "torch", "len", "print", "accelerate", "trl"))
#: what a tokenizer returns for a text
_IDS = ("input_ids", "attention_mask")
#: kinds that cannot be taken apart
_WHOLE = frozenset(("None", "int", "float", "transformers.PreTrainedModel", "peft.PeftModel"))
#: kinds that a dictionary display or a similar call certainly is, and whose attributes are Python's
_PLAIN = frozenset(("dict", "list", "None", "int", "float"))

#: kind of node -> the method that follows it
_WAYS: Mapping[type[ast.AST], str] = {
    ast.Name: "_name",
    ast.Attribute: "_attribute",
    ast.Call: "_call",
    ast.Subscript: "_item",
    ast.Constant: "_constant",
    ast.Tuple: "_tuple",
    ast.IfExp: "_choice",
    ast.NamedExpr: "_named",
    ast.ListComp: "_comprehension",
    ast.Lambda: "_comprehension",
    ast.SetComp: "_comprehension",
    ast.DictComp: "_comprehension",
    ast.GeneratorExp: "_comprehension",
}
_DISPLAYS: Mapping[type[ast.AST], Kind] = {
    ast.JoinedStr: Kind("str"),
    ast.List: Kind("list"),
    ast.ListComp: Kind("list"),
    ast.Dict: Kind("dict"),
}


class Expressions(CallFaults):
    """The kinds of expressions."""

    def full_name(self, node: ast.expr) -> str:
        """Return the full name of an imported function or class; empty if the expression is none."""
        if isinstance(node, ast.Name):
            kind = self.lookup(node.id)
            return kind.source if kind is not None and kind.name == "api" else ("" if node.id in self.names else node.id)
        if isinstance(node, ast.Attribute):
            owner = self.full_name(node.value)
            return f"{owner}.{node.attr}" if owner and "." not in node.attr else ""
        return ""

    def lookup(self, name: str) -> Kind | None:
        """Return the kind of a name; None if it is not known."""
        return self.names[name] if name in self.names else self.outer.get(name)

    def bind(self, target: ast.expr, kind: Kind | None, value: ast.expr) -> None:
        """Give the names of a target the kinds of a value."""
        if isinstance(target, ast.Name):
            self.names[target.id] = kind
        elif isinstance(target, (ast.Tuple, ast.List)):
            self._unpack(target, kind, value)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, None, value)
        else:
            self.parts(target)
            self._assigned(target, value)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        """Note what an assignment to an attribute gives a tokenizer."""
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            name = target.value.id
            kind = self.lookup(name)
            if kind is not None and kind.name == TOKENIZER:
                self.change(name, after_assignment(kind, target.attr, value, name, target.lineno))

    def change(self, name: str, kind: Kind | None) -> None:
        """Give a name of this function, or of the module, another kind."""
        (self.names if name in self.names or name not in self.outer else self.outer)[name] = kind

    def _unpack(self, target: ast.Tuple | ast.List, kind: Kind | None, value: ast.expr) -> None:
        items: tuple[Kind | None, ...] = (None,) * len(target.elts)
        starred = any(isinstance(one, ast.Starred) for one in target.elts)
        if kind is not None and kind.name in _WHOLE:
            what = "None" if kind.name == "None" else f"one {kind.name.rpartition('.')[2]}"
            self.report("unpacked", kind.source or kind.name, ast.unparse(target), value, detail=what)
        elif kind is not None and kind.name == "tuple" and kind.items and not starred:
            if len(kind.items) != len(target.elts):
                self.report("unpacked", kind.source, ast.unparse(target), value, detail=f"{len(kind.items)} values")
            else:
                items = kind.items
                self.ordered(target, value)
        for one, item in zip(target.elts, items, strict=True):
            self.bind(one, item, value)

    def kind(self, node: ast.expr) -> Kind | None:
        """Return the kind of an expression, and note the faults inside it."""
        way = _WAYS.get(type(node))
        if way is not None:
            found: Kind | None = getattr(self, way)(node)
            return found
        self.parts(node)
        return _DISPLAYS.get(type(node))

    def _name(self, node: ast.Name) -> Kind | None:
        return self.lookup(node.id)

    def _constant(self, node: ast.Constant) -> Kind | None:
        if isinstance(node.value, str):
            return Kind("str", text=node.value)
        return Kind(type(node.value).__name__) if node.value is not None and node.value is not ... else None

    def _tuple(self, node: ast.Tuple) -> Kind:
        starred = any(isinstance(one, ast.Starred) for one in node.elts)
        items = tuple(self.kind(one) for one in node.elts)
        return Kind("tuple", () if starred else items)

    def _choice(self, node: ast.IfExp) -> Kind | None:
        self.kind(node.test)
        return joined(self.kind(node.body), self.kind(node.orelse))

    def _named(self, node: ast.NamedExpr) -> Kind | None:
        found = self.kind(node.value)
        self.bind(node.target, found, node.value)
        return found

    def parts(self, node: ast.AST) -> None:
        """Note the faults inside a node."""
        for child in children(node):
            if isinstance(child, ast.expr):
                self.kind(child)
            elif not isinstance(child, ast.stmt):
                self.parts(child)

    def _comprehension(self, node: ast.expr) -> Kind | None:
        """Note the faults inside a node that binds names of its own."""
        names = self.names
        own = {one.id for one in walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        own |= {one.arg for one in walk(node) if isinstance(one, ast.arg)}
        self.names = {**names, **dict.fromkeys(own)}
        self.parts(node)
        self.names = names
        return _DISPLAYS.get(type(node))

    def _attribute(self, node: ast.Attribute, *, called: bool = False) -> Kind | None:
        owner = self.kind(node.value)
        if owner is None or not isinstance(node.ctx, ast.Load):
            return None
        if owner.name == "api":
            return Kind("api", source=f"{owner.source}.{node.attr}")
        if owner.name in ("function", "method", "tuple", "str", "bool"):
            return None
        if owner.name == "None" and owner.source:
            self.report("none", owner.source, ast.unparse(node), node, at=owner.line)
            return None
        if owner.name == ENCODING and node.attr in _IDS:
            return _ids(owner)
        self._member(owner, node, called=called)
        named = _ATTRIBUTES.get((owner.name, node.attr)) or _ATTRIBUTES.get((_base(owner.name), node.attr))
        if named:
            return Kind(named, source=f"{owner.name.rpartition('.')[2]}.{node.attr}")
        return Kind("method", source=node.attr, owner=owner)

    def _member(self, owner: Kind, node: ast.Attribute, *, called: bool) -> None:
        if node.attr in self.stored or f'"{node.attr}"' in self.text or f"'{node.attr}'" in self.text:
            return
        removed = removed_attribute(owner.name, node.attr, self.versions)
        if removed is not None:
            self.report("attribute", owner.name, node.attr, node, meant=removed[1], version=removed[0])
            return
        lack = absent_member(owner.name, node.attr, self.versions, called=called)
        if lack is not None and (owner.name not in _PLAIN or owner.source):
            version = f"{lack.library} {lack.until}" if lack.until else ""
            self.report("attribute", owner.name, node.attr, node, meant=lack.meant, version=version, detail=owner.source)

    def _call(self, node: ast.Call) -> Kind | None:
        function = self._attribute(node.func, called=True) if isinstance(node.func, ast.Attribute) else self.kind(node.func)
        if (
            function is None
            and isinstance(node.func, ast.Name)
            and node.func.id not in self.names
            and node.func.id not in self.outer
        ):
            function = Kind("api", source=node.func.id)
        places = [self.kind(one) for one in node.args]
        named = {one.arg: self.kind(one.value) for one in node.keywords}
        found = self._applied(function, node, places, named)
        self._changed(function, node)
        return found

    def _changed(self, function: Kind | None, node: ast.Call) -> None:
        """Note what a call does to the tokenizers that it gets, or is a method of."""
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if (
            isinstance(owner, ast.Name)
            and function is not None
            and function.owner is not None
            and function.owner.name == TOKENIZER
        ):
            self.change(owner.id, after_call(function.owner, function.source, node))
        if function is not None and (function.name not in ("api", "function") or _keeps(function.source)):
            return
        for one in (*node.args, *(word.value for word in node.keywords)):
            kind = self.lookup(one.id) if isinstance(one, ast.Name) else None
            if isinstance(one, ast.Name) and kind is not None and kind.name == TOKENIZER:
                self.change(one.id, Kind(TOKENIZER, source=kind.source, line=kind.line))

    def _applied(
        self, function: Kind | None, node: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]
    ) -> Kind | None:
        """Return the kind of what a call returns."""
        if function is None:
            return None
        if function.name == "function" and function.node is not None:
            return self._own(function.node, node, places, named)
        if function.name == "api":
            return self.library_call(function.source, node, places, named)
        if function.name == "method" and function.owner is not None:
            return self.method_call(function.owner, function.source, node, places, named)
        return self.object_call(function, node, places, named)

    def _own(
        self, function: ast.FunctionDef, call: ast.Call, places: list[Kind | None], named: Mapping[str | None, Kind | None]
    ) -> Kind | None:
        parameters = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
        starred = any(isinstance(one, ast.Starred) for one in call.args)
        given = {} if starred else dict(zip(parameters, places, strict=False))
        return self.called(function, given | {name: kind for name, kind in named.items() if name})

    def _item(self, node: ast.Subscript) -> Kind | None:
        owner = self.kind(node.value)
        self.kind(node.slice)
        if owner is None or not isinstance(node.ctx, ast.Load):
            return None
        if owner.name == "None" and owner.source:
            self.report("none", owner.source, ast.unparse(node), node, at=owner.line)
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if owner.name == ENCODING and key in _IDS:
            return _ids(owner)
        if owner.name in (SPLITS, "datasets.IterableDatasetDict") and isinstance(key, str):
            if owner.keys is not None and key not in owner.keys:
                self.report("key", owner.source, key, node, meant=" and ".join(owner.keys))
            return Kind(owner.name.replace("Dict", ""))
        if (
            owner.source == "Trainer.evaluate"
            and isinstance(key, str)
            and not key.startswith((*(owner.keys or ("",)), "epoch"))
        ):
            self.report("key", "Trainer.evaluate", key, node, meant=f"eval_{key}")
        if owner.name == "tuple" and isinstance(key, int) and owner.items:
            return owner.items[key] if -len(owner.items) <= key < len(owner.items) else None
        return None


def _base(owner: str) -> str:
    return "transformers.Trainer" if owner.endswith("Trainer") else owner


def _keeps(function: str) -> bool:
    """Return whether a function of a library leaves the tokenizers that it gets as they are."""
    return function.partition(".")[0] in _KEEPERS and "chat" not in function


def _ids(encoding: Kind) -> Kind | None:
    """Return the kind of the token ids of an encoding: a list, unless a kind of tensor is asked for."""
    return None if encoding.keys else Kind("list", source="the tokenizer", line=encoding.line)
