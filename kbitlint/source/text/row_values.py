"""Expressions of the functions that make rows, with the form of what each is."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import is_constant, is_open, keyword, last
from kbitlint.source.text.row_encodings import encoded, is_tokenizer
from kbitlint.source.text.row_forms import NONE, NUMBER, TEXT, UNKNOWN, Form, added, column, joined, rows, sliced, without

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kbitlint.source.text.bindings import Bindings, Def

#: methods of a text that return one
_OF_TEXTS = frozenset(("strip", "lstrip", "rstrip", "lower", "upper", "replace", "format", "join", "title", "removeprefix"))
#: methods and functions that leave the items of ids as they are
_SAME = frozenset(
    ("copy", "clone", "tolist", "list", "deepcopy", "detach", "long", "cpu", "contiguous", "tensor", "LongTensor", "array")
)
#: methods that take away the first dimension of a tensor with one item there
_FLAT = frozenset(("squeeze", "flatten", "ravel"))
#: functions whose result is a number
_NUMBERS = frozenset(("int", "float", "sum", "bool", "round", "ord"))


class Values:
    """The forms of expressions inside one function.

    Args:
        names: The bindings of the file.
        batched: Whether the function gets a batch of rows.
    """

    def __init__(self, names: Bindings, *, batched: bool) -> None:
        self.names = names
        self.batched = batched
        self.env: dict[str, Form] = {}
        self.absent: list[tuple[int, str]] = []
        """(line, column) of each column that the function reads, and that its rows certainly lack."""
        self.read: set[str] = set()
        """The columns that the function reads."""
        self.texts: set[str] = set()
        """The columns that the function passes to a tokenizer as texts."""
        self.by_characters: list[int] = []
        """The lines on which token ids are cut or masked by the number of characters of a text."""
        self.from_start: list[int] = []
        """The lines on which padded token ids are cut or masked by the number of tokens of their first part."""
        self._ways: dict[type[ast.AST], Callable[..., Form]] = {
            ast.Constant: self._constant, ast.JoinedStr: self._text, ast.BinOp: self._operation, ast.Dict: self._display,
            ast.Subscript: self._subscript, ast.Attribute: self._attribute, ast.Call: self._call, ast.Name: self._name,
            ast.ListComp: self._comprehension, ast.List: self._list, ast.IfExp: self._either, ast.Tuple: self._tuple,
        }  # fmt: skip

    def value(self, node: ast.expr | None) -> Form:
        """Return the form of an expression."""
        way = self._ways.get(type(node)) if node is not None else None
        return way(node) if way is not None else UNKNOWN

    def called(self, function: Def, given: Sequence[Form]) -> Form:
        """Return the form of what a function of the script returns."""
        raise NotImplementedError

    def _constant(self, node: ast.Constant) -> Form:
        if isinstance(node.value, str):
            return TEXT
        return NONE if node.value is None else NUMBER

    def _text(self, node: ast.JoinedStr) -> Form:
        for one in node.values:
            if isinstance(one, ast.FormattedValue):
                self.value(one.value)
        return TEXT

    def _name(self, node: ast.Name) -> Form:
        if node.id in self.env:
            return self.env[node.id]
        made, _ = self.names.value(node)
        return self._constant(made) if isinstance(made, ast.Constant) else TEXT if isinstance(made, ast.JoinedStr) else UNKNOWN

    def _either(self, node: ast.IfExp) -> Form:
        return joined((self.value(node.body), self.value(node.orelse)))

    def _tuple(self, node: ast.Tuple) -> Form:
        for one in node.elts:
            self.value(one)
        return Form("tuple")

    def _list(self, node: ast.List) -> Form:
        inner = [self.value(one) for one in node.elts]
        return Form("ids", "own") if all(one.kind in ("number", "") for one in inner) and len(inner) <= 1 else UNKNOWN

    def _operation(self, node: ast.BinOp) -> Form:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Add):
            self._mixed(node, left, right)
            return added(left, right)
        if isinstance(node.op, ast.Mult) and (isinstance(node.left, ast.List) or isinstance(node.right, ast.List)):
            times = right if isinstance(node.left, ast.List) else left
            counts = times.kind == "count" and times.of is not None
            length = times.of.length if counts and times.of is not None and times.of.kind == "ids" else ""
            return Form("ids", length, of=times.of if counts else None)
        return NUMBER if left.kind == right.kind == "number" else UNKNOWN

    def _mixed(self, node: ast.BinOp, left: Form, right: Form) -> None:
        """Note marks for each character of a text, put before or after token ids."""
        for marks, other in ((left, right), (right, left)):
            if marks.kind == "ids" and marks.of is not None and marks.of.kind == "text" and other.kind == "ids":
                self.by_characters.append(node.lineno)

    def bounded(self, value: Form, part: ast.expr) -> None:
        """Note a slice of token ids whose bound is the number of characters of a text."""
        bounds = [self.value(one) for one in (part.lower, part.upper) if one is not None] if isinstance(part, ast.Slice) else []
        counted = {one.of.kind: one.of for one in bounds if one.kind == "count" and one.of is not None}
        if value.kind == "ids" and "text" in counted:
            self.by_characters.append(part.lineno)
        elif value.kind == "ids" and value.length == "fixed" and "ids" in counted and counted["ids"].length == "own":
            self.from_start.append(part.lineno)

    def _display(self, node: ast.Dict) -> Form:
        found: dict[str, Form] = {}
        closed, marks = True, False
        for key, one in zip(node.keys, node.values, strict=True):
            value = self.value(one)
            if key is None and value.kind == "rows":
                found |= value.columns
                closed, marks = closed and value.closed, marks or value.encoded
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                found[key.value] = value
            else:
                closed = False
        return rows(found, closed=closed)

    def _subscript(self, node: ast.Subscript) -> Form:
        value = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            self.bounded(value, node.slice)
            begins = node.slice.upper is None and is_constant(node.slice.lower, 1)
            part = sliced(value)
            return Form("ids", part.length, shifted=node.lineno) if begins and part.kind == "ids" else part
        if value.kind == "rows" and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            return self._item(node, value, node.slice.value)
        self.value(node.slice)
        if value.kind == "column" and value.of is not None and not isinstance(node.slice, ast.Constant):
            return value.of
        if value.kind == "ids":
            return (
                Form("ids", value.length)
                if value.deep and is_constant(node.slice, 0)
                else NUMBER
                if not value.deep
                else UNKNOWN
            )
        return TEXT if value.kind == "text" else UNKNOWN

    def _item(self, node: ast.Subscript, value: Form, name: str) -> Form:
        if value.single:
            self.read.add(name)
            if value.closed and name not in value.columns:
                self.absent.append((node.lineno, name))
        return value.columns.get(name, column(UNKNOWN) if value.single and self.batched else UNKNOWN)

    def _attribute(self, node: ast.Attribute) -> Form:
        if node.attr.endswith("_token") and is_tokenizer(self.names, node.value):
            return TEXT
        if node.attr.endswith("_token_id") and is_tokenizer(self.names, node.value):
            return NUMBER
        value = self.value(node.value)
        return value.columns.get(node.attr, UNKNOWN) if value.kind == "rows" and value.encoded else UNKNOWN

    def _comprehension(self, node: ast.ListComp) -> Form:
        first = node.generators[0]
        before = dict(self.env)
        over = self._parts(first.iter)
        self._bind(first.target, over, numbered=self._numbers(first.iter))
        for test in first.ifs:
            self.value(test)
        for more in node.generators[1:]:
            self._bind(more.target, [], numbered=False)
        inner = self.value(node.elt)
        if any(one.kind == "ids" for one in over):
            self._compared(node.elt)
        self.env = before
        if first.ifs or len(node.generators) > 1:
            return UNKNOWN
        if any(one.kind == "column" for one in over):
            return column(inner)
        if isinstance(first.iter, ast.Call) and last(first.iter) == "range" and len(first.iter.args) == 3:  # with a step
            return Form("chunks")
        ids = [one for one in over if one.kind == "ids"]
        return Form("ids", ids[0].length) if ids and not any(one.deep for one in ids) else UNKNOWN

    def _compared(self, node: ast.expr) -> None:
        """Note a comparison of the place of a token with the number of characters of a text."""
        for one in walk(node):
            if isinstance(one, ast.Compare):
                values = [self.value(side) for side in (one.left, *one.comparators)]
                if any(value.kind == "count" and value.of is not None and value.of.kind == "text" for value in values):
                    self.by_characters.append(one.lineno)

    def _parts(self, node: ast.expr) -> list[Form]:
        """Return the forms of what a loop goes over: those inside ``zip`` and ``enumerate``."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("zip", "enumerate"):
            return [part for one in node.args for part in self._parts(one)]
        return [self.value(node)]

    @staticmethod
    def _numbers(node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "enumerate"

    def _bind(self, target: ast.expr, over: list[Form], *, numbered: bool) -> None:
        """Bind the names of a loop to the items of what it goes over."""
        flat = [one.id if isinstance(one, ast.Name) else "" for one in walk(target) if isinstance(one, (ast.Name, ast.Starred))]
        items = [
            one.of if one.kind == "column" and one.of is not None else NUMBER if one.kind == "ids" else UNKNOWN for one in over
        ]
        items = [NUMBER, *items] if numbered else items
        for place, name in enumerate(flat):
            self.env[name] = items[place] if len(items) == len(flat) else UNKNOWN

    def _call(self, node: ast.Call) -> Form:
        name = last(node)
        given = [self.value(one) for one in node.args if not isinstance(one, ast.Starred)]
        for one in node.keywords:
            self.value(one.value)
        method = isinstance(node.func, ast.Attribute) and (
            name == "apply_chat_template" or is_tokenizer(self.names, node.func.value)  # of a tokenizer under any name
        )
        if method or is_tokenizer(self.names, node.func):
            self._reads_text(node, name)
            return encoded(node, given, name, batched=self.batched)
        if isinstance(node.func, ast.Name):
            return self._function(node, name, given)
        return self._method(node, name, given) if isinstance(node.func, ast.Attribute) else UNKNOWN

    def _reads_text(self, node: ast.Call, name: str) -> None:
        """Note the column that is the text of a tokenizer's call."""
        first = node.args[0] if node.args and name not in ("apply_chat_template", "pad", "decode", "batch_decode") else None
        if isinstance(first, ast.Subscript) and isinstance(first.slice, ast.Constant) and self.value(first.value).single:
            self.texts.add(str(first.slice.value))

    def _function(self, node: ast.Call, name: str, given: list[Form]) -> Form:
        if name == "len" and len(given) == 1:
            return Form("count", of=given[0]) if given[0].kind in ("text", "ids") else UNKNOWN
        if name in _NUMBERS:
            return NUMBER
        if name in ("str", "repr"):
            return TEXT
        if name == "dict":
            more = {one.arg: self.value(one.value) for one in node.keywords if one.arg}
            own = given[0] if given else rows(closed=True)
            return rows({**own.columns, **more}, closed=own.closed and not is_open(node)) if own.kind == "rows" else UNKNOWN
        if name in _SAME and len(given) == 1:
            return given[0] if given[0].kind in ("ids", "column") else UNKNOWN
        function = self.names.function(node.func) if node.func.id not in self.env else None  # type: ignore[attr-defined]
        plain = function is not None and not is_open(node) and len(given) == len(node.args)
        return self.called(function, given) if plain and function is not None else UNKNOWN

    def _method(self, node: ast.Call, name: str, given: list[Form]) -> Form:
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        value = self.value(owner)
        if name in _OF_TEXTS and value.kind == "text":
            return TEXT
        if value.kind == "rows" and name in ("pop", "get") and node.args:
            key = node.args[0]
            if name == "pop" and isinstance(owner, ast.Name):
                self.env[owner.id] = without(value, key)
            return value.columns.get(str(key.value), UNKNOWN) if isinstance(key, ast.Constant) else UNKNOWN
        if name in _SAME and value.kind in ("ids", "column", "rows"):
            return value
        if name in _SAME and len(given) == 1 and given[0].kind in ("ids", "column"):
            return given[0]  # torch.tensor(ids), copy.deepcopy(ids)
        whole = not node.args or is_constant(node.args[0], 0)
        minus = (
            bool(node.args) and isinstance(node.args[0], ast.UnaryOp) and name in ("view", "reshape") and len(node.args) == 1
        )
        if value.kind == "ids" and ((name in _FLAT and whole) or minus):
            return Form("ids", value.length)
        return UNKNOWN if keyword(node, "dim") is None or value.kind != "ids" else Form("ids", value.length)
