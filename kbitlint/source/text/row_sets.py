"""Columns of a script's data sets and the form of each, followed from where the rows come from to where they are used."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, is_open, items, keyword, last, returned
from kbitlint.source.text.data_sets import form
from kbitlint.source.text.row_forms import NUMBER, TEXT, UNKNOWN, Form, RowSet, column, item, less
from kbitlint.source.text.row_functions import RowFunction
from kbitlint.source.text.row_sources import is_named, listed_rows, own_rows, splits_of, written_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.source.text.bindings import Bindings, Def

#: methods that leave the columns as they are
_SAME = frozenset(
    (
        *("filter", "shuffle", "select", "sort", "take", "skip", "shard", "train_test_split", "flatten_indices"),
        *("to_iterable_dataset", "class_encode_column", "cast_column", "repeat", "batch_shuffle"),
    )
)
#: functions whose data set has columns that the script does not tell
_LOADERS = frozenset(("load_dataset", "load_from_disk", "from_json", "from_csv", "from_parquet"))
_DEPTH = 40
#: calls inside of calls that are followed
_CALLS = 12


class RowSets:
    """The data sets of a file.

    Args:
        names: The bindings of the file.
        given: ``id`` of each parameter of the function that is followed -> the rows that it is called with.
    """

    def __init__(self, names: Bindings, given: Mapping[int, RowSet | None] | None = None) -> None:
        self._names = names
        self._given = given or {}
        self._known: dict[int, RowSet | None] = {}
        self._depth = 0
        self.faults: list[DataUse] = []
        self.raw: set[int] = set()
        """The sources whose rows hold no token ids: a function makes them."""

    def of(self, node: ast.AST | None, before: int = 0) -> RowSet | None:
        """Return the rows of a data set; None if nothing is known of them."""
        use = before or getattr(node, "lineno", 0)
        value, line = self._names.value(node, before)
        if value is None and self._given:
            parameter = self._names.parameter(node, before)
            return self._given.get(id(parameter)) if parameter is not None else None
        if value is None or self._depth > _DEPTH:
            return None
        if isinstance(value, (ast.List, ast.ListComp)):
            return listed_rows(self._names, node, value)
        if id(value) not in self._known:
            self._known[id(value)] = None
            self._depth += 1
            self._known[id(value)] = self._made(value, line)
            self._depth -= 1
        found = self._known[id(value)]
        return self._changed(found, node, value, use) if found is not None and isinstance(node, ast.Name) else found

    def _changed(self, found: RowSet, node: ast.Name, value: ast.AST, use: int) -> RowSet:
        """Return rows after the calls that change the data set in place."""
        for call in self._names.calls:
            owner = call.func.value if isinstance(call.func, ast.Attribute) else None
            if last(call) not in ("set_format", "set_transform") or not isinstance(owner, ast.Name) or owner.id != node.id:
                continue
            if call.lineno < use and self._names.value(owner)[0] is value and id(call) not in self._names.uncertain:
                found = self._formatted(found, call) or RowSet({}, frozenset((id(call),)))
        return found

    def _made(self, node: ast.AST, line: int) -> RowSet | None:
        if isinstance(node, ast.Subscript):
            inner = self._names.value(node.value, line)[0]
            if isinstance(inner, ast.Dict):
                key = node.slice.value if isinstance(node.slice, ast.Constant) else None
                return self.of(items(inner).get(str(key)), line)
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                if node.slice.value in ("train", "test", "validation") and form(self._names, node.value) == "rows":
                    self.faults.append(DataUse("split of rows", node.lineno, node.slice.value))
                    return None
                splits = splits_of(self._names, node.value, line)
                if splits and node.slice.value not in splits:
                    self.faults.append(DataUse("split absent", node.lineno, f"{node.slice.value}, but {' and '.join(splits)}"))
                return self.of(node.value, line)
            return None
        if not isinstance(node, ast.Call):
            return None
        if isinstance(node.func, ast.Attribute) and last(node) not in _LOADERS and not last(node).startswith("from_"):
            owner = self.of(node.func.value, line)
            return self._method(owner, node, last(node)) if owner is not None else self._built(node, node.func)
        return self._source(node)

    def _source(self, call: ast.Call) -> RowSet | None:
        if last(call) in _LOADERS:
            return RowSet({}, frozenset((id(call),)))
        made, _ = self._names.value(call.func)
        if isinstance(made, ast.FunctionDef):
            return self._returned(made, call)
        if isinstance(made, ast.ClassDef):
            found, body = own_rows(self._names, made)
            if body is not None:
                self._note(body)
            return found
        return written_rows(self._names, call)

    def _returned(self, function: ast.FunctionDef, call: ast.Call) -> RowSet | None:
        """Return the rows that a function of the script returns for a call."""
        values = returned(function)
        if len(values) != 1 or self._depth > _CALLS:
            return None
        parameters = [one for one in function.args.args if one.arg != "self"]
        pairs = [*zip(parameters, call.args, strict=False)]
        pairs += [(one, word.value) for word in call.keywords for one in parameters if one.arg == word.arg]
        given = {id(one): self.of(value) for one, value in pairs if isinstance(value, (ast.Name, ast.Call, ast.Subscript))}
        inner = RowSets(self._names, given)
        inner._depth = self._depth + 1
        found = inner.of(values[0])
        self.faults += inner.faults
        self.raw |= inner.raw
        return found

    def _built(self, call: ast.Call, method: ast.Attribute) -> RowSet | None:
        """Return the rows that a method of an object of the script's own class returns."""
        made, _ = self._names.value(method.value)
        cls, _ = self._names.value(made.func) if isinstance(made, ast.Call) else (None, 0)
        body = cls.body if isinstance(cls, ast.ClassDef) else []
        own = [one for one in body if isinstance(one, ast.FunctionDef) and one.name == last(call)]
        return self._returned(own[0], call) if own else None

    def _note(self, body: RowFunction, call: ast.AST | None = None) -> None:
        self.faults += [DataUse("labels by characters", line) for line in body.by_characters]
        self.faults += [DataUse("mask on padding", line) for line in body.from_start]
        if id(call) not in self._names.uncertain:
            self.faults += [DataUse("column absent", line, name) for line, name in body.absent]

    def _method(self, owner: RowSet, call: ast.Call, name: str) -> RowSet | None:
        if name in _SAME:
            return owner
        if name in ("add_column", "cast"):
            return RowSet(owner.columns, owner.opens | {id(call)})
        ways = {"map": self._mapped, "remove_columns": self._selected, "select_columns": self._selected}
        ways |= dict.fromkeys(("rename_column", "rename_columns"), self._renamed)
        ways |= dict.fromkeys(("with_format", "set_format", "with_transform", "set_transform"), self._formatted)
        return ways[name](owner, call) if name in ways else None

    def _selected(self, owner: RowSet, call: ast.Call) -> RowSet | None:
        named = self._columns(call.args[0] if call.args else keyword(call, "column_names"))
        if named is None:
            return None
        self._absent(owner, call, named[0])
        if last(call) == "select_columns":
            return RowSet({one: owner.columns.get(one, UNKNOWN) for one in named[0]})
        return less(owner, *named)

    def _absent(self, owner: RowSet, call: ast.Call, named: frozenset[str]) -> None:
        """Note columns that a call names and its data set certainly lacks."""
        gone = sorted(named - set(owner.columns)) if not owner.opens else []
        if gone and id(call) not in self._names.uncertain:
            self.faults.append(DataUse("column absent", call.lineno, gone[0]))

    def _renamed(self, owner: RowSet, call: ast.Call) -> RowSet | None:
        given = [self._names.value(one)[0] for one in call.args]
        pairs: dict[str, ast.AST | None] = {}
        if len(given) == 2 and isinstance(given[0], ast.Constant):  # old and new name
            pairs = {str(given[0].value): given[1]}
        elif given and isinstance(given[0], ast.Dict):
            pairs = dict(items(given[0]))
        if not pairs or not all(isinstance(one, ast.Constant) for one in pairs.values()):
            return None
        self._absent(owner, call, frozenset(pairs))
        new = {
            str(one.value): owner.columns.get(old, NUMBER if old == "label" else UNKNOWN)
            for old, one in pairs.items()
            if isinstance(one, ast.Constant)
        }
        return RowSet({**{name: one for name, one in owner.columns.items() if name not in pairs}, **new}, owner.opens)

    def _columns(self, node: ast.expr | None) -> tuple[frozenset[str], frozenset[int]] | None:
        """Return (columns, sources of all further ones) that an expression names; None if it is not certain."""
        if isinstance(node, ast.Call) and last(node) == "list" and len(node.args) == 1:
            node = node.args[0]
        value, line = self._names.value(node)
        if isinstance(value, ast.Call) and last(value) in ("keys", "list"):
            value = value.func.value if isinstance(value.func, ast.Attribute) else value.args[0] if value.args else None
        if isinstance(value, ast.Attribute) and value.attr in ("column_names", "features"):
            owner = self.of(value.value, line if isinstance(node, ast.Name) else 0)
            return (frozenset(owner.columns), owner.opens) if owner is not None else None
        texts = value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]
        found = [one.value for one in texts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return (frozenset(found), frozenset()) if len(found) == len(texts) else None

    def _formatted(self, owner: RowSet, call: ast.Call) -> RowSet | None:
        given = call.args[0] if call.args else keyword(call, "transform")
        if last(call).endswith("transform"):
            function = self._names.function(given)
            body, made = self._applied(owner, function, batched=True) if function is not None else (None, UNKNOWN)
            if body is None or made.kind != "rows":
                return None
            self._note(body, call)
            return RowSet(owner.columns, owner.opens, made, frozenset(body.read))
        asked = keyword(call, "columns") or (call.args[1] if len(call.args) > 1 else None)
        tensors = is_constant(keyword(call, "type") or given, "torch") or owner.tensors
        if asked is None or keyword(call, "output_all_columns") is not None:
            return RowSet(owner.columns, owner.opens, owner.transform, owner.needs, tensors=tensors)
        named = self._columns(asked)
        if named is None or named[1]:
            return None
        self._absent(owner, call, named[0])
        return RowSet({one: owner.columns.get(one, UNKNOWN) for one in named[0]}, tensors=tensors)

    def _applied(self, owner: RowSet, function: Def, *, batched: bool) -> tuple[RowFunction, Form]:
        body = RowFunction(self._names, function, batched=batched)
        columns = {name: column(one) for name, one in owner.columns.items()} if batched else dict(owner.columns)
        given = Form("rows", columns=columns, closed=not owner.opens, single=True)
        return body, body.result([given])

    def _function(self, node: ast.expr | None) -> Def | None:
        if isinstance(node, ast.Attribute) and is_named(node.value, "self"):
            own = [one for one in self._names.functions if isinstance(one, ast.FunctionDef) and one.name == node.attr]
            return own[0] if len(own) == 1 and own[0].args.args and own[0].args.args[0].arg == "self" else None
        made, _ = self._names.value(node)
        if isinstance(made, ast.Call) and last(made) == "partial" and len(made.args) == 1:
            return self._names.function(made.args[0])
        return self._names.function(node)

    def _mapped(self, owner: RowSet, call: ast.Call) -> RowSet | None:
        batched, gone = keyword(call, "batched"), keyword(call, "remove_columns")
        function = self._function(call.args[0] if call.args else keyword(call, "function"))
        plain = not is_open(call) and keyword(call, "input_columns") is None and len(call.args) <= 1
        if not plain or not (batched is None or isinstance(batched, ast.Constant)):
            return None
        named = (
            self._columns(gone) if gone is not None and not is_constant(gone, None) else (frozenset[str](), frozenset[int]())
        )
        if function is None or named is None:
            return None
        many = is_constant(batched, value=True)
        body, made = self._applied(owner, function, batched=many)
        self._note(body, call)
        self._absent(owner, call, named[0])
        if made.kind == "none":
            self.faults += (
                [DataUse("rows not returned", body.stores[0], getattr(function, "name", "it"))] if body.stores else []
            )
            return less(owner, *named)
        if made.kind != "rows":
            return RowSet({}, frozenset((id(call),)))
        if "input_ids" in made.columns and "input_ids" not in owner.columns and body.read:
            self.raw |= owner.opens
        read = dict.fromkeys(body.read, UNKNOWN) | dict.fromkeys(body.texts, TEXT)
        gone_all = bool(owner.opens) and owner.opens <= named[1]  # what was read of the source goes with it
        before = RowSet({**({} if gone_all else read), **owner.columns}, owner.opens)
        left = less(before, *named)
        self._counted(left, made, call)
        kept = (
            body.read | (set(made.columns) - set(owner.columns)) if made.single else set(made.columns)
        )  # a row that is returned
        columns = {name: item(one, many=many) for name, one in made.columns.items() if name in kept or name not in named[0]}
        opens = left.opens if made.closed or made.single else left.opens | {id(call)}
        return RowSet({**left.columns, **columns}, opens)

    def _counted(self, left: RowSet, made: Form, call: ast.Call) -> None:
        """Note a batch that becomes more or fewer rows, beside a column that keeps its number."""
        chunks = [name for name, one in made.columns.items() if one.kind == "chunks"]
        kept = sorted(set(left.columns) - set(made.columns))
        if chunks and kept and made.closed:
            self.faults.append(DataUse("rows of other number", call.lineno, kept[0]))
