"""Rows that a script makes itself: written out, listed, yielded, or by the item of its own class."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import is_open, items, keyword, last
from kbitlint.source.text.row_forms import UNKNOWN, Form, RowSet, joined
from kbitlint.source.text.row_functions import RowFunction

if TYPE_CHECKING:
    from kbitlint.source.text.bindings import Bindings

#: builders whose data_files name the splits; ``datasets/packaged_modules``
_BUILDERS = frozenset(("json", "csv", "text", "parquet", "pandas", "arrow"))


def is_named(node: ast.AST | None, name: str) -> bool:
    """Return whether an expression is this name."""
    return isinstance(node, ast.Name) and node.id == name


def splits_of(names: Bindings, node: ast.AST, line: int) -> tuple[str, ...]:
    """Return the splits of a data set that is loaded from files; empty if they are not certain."""
    value, _ = names.value(node, line)
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and last(value) in ("map", "filter", "shuffle"):
        value, _ = names.value(value.func.value, value.lineno + (not isinstance(value.func.value, ast.Name)))
    if (
        not isinstance(value, ast.Call)
        or last(value) != "load_dataset"
        or is_open(value)
        or keyword(value, "split") is not None
    ):
        return ()
    kind, files = names.value(value.args[0] if value.args else None)[0], names.value(keyword(value, "data_files"))[0]
    if not isinstance(kind, ast.Constant) or kind.value not in _BUILDERS or len(value.args) > 1:
        return ()
    if isinstance(files, ast.Dict):
        return tuple(items(files)) if len(items(files)) == len(files.keys) else ()
    return ("train",) if isinstance(files, (ast.Constant, ast.List, ast.JoinedStr)) else ()


def written_rows(names: Bindings, call: ast.Call) -> RowSet | None:
    """Return the rows that a script writes out for a call of ``datasets`` or torch; None if they are not certain."""
    name = last(call)
    if name == "TensorDataset":
        return RowSet({}, item="tuple")
    if not names.full(call.func).startswith("datasets.") or not name.startswith("from_"):
        return None
    given, _ = names.value(call.args[0] if call.args else None)
    unknown = RowSet({}, frozenset((id(call),)))
    if name == "from_generator":
        return _yielded(names, given) if isinstance(given, ast.FunctionDef) and not call.keywords else unknown
    if name == "from_pandas":
        part = given.slice if isinstance(given, ast.Subscript) else None
        texts = [one.value for one in part.elts if isinstance(one, ast.Constant)] if isinstance(part, ast.List) else []
        known = isinstance(part, ast.List) and len(texts) == len(part.elts) and bool(texts)
        return RowSet({str(one): UNKNOWN for one in (*texts, "__index_level_0__")}) if known else unknown
    if isinstance(given, ast.BinOp) and isinstance(given.op, ast.Mult):
        given = given.left
    if name == "from_list":
        listed = given.elts if isinstance(given, ast.List) else [given.elt] if isinstance(given, ast.ListComp) else []
        same = listed and all(isinstance(one, ast.Dict) and set(items(one)) == set(items(listed[0])) for one in listed)
        given = listed[0] if same else None
    known = isinstance(given, ast.Dict) and len(items(given)) == len(given.keys) and name in ("from_list", "from_dict")
    return RowSet(dict.fromkeys(items(given), UNKNOWN)) if known and given is not None else None


def _yielded(names: Bindings, function: ast.FunctionDef) -> RowSet | None:
    """Return the rows that a generator yields."""
    yields = [one.value for one in walk(function) if isinstance(one, ast.Yield) and one.value is not None]
    body = RowFunction(names, function, batched=False)
    found = joined(body.value(one) for one in yields if isinstance(one, ast.Dict))
    known = found.kind == "rows" and found.closed and all(isinstance(one, ast.Dict) for one in yields)
    return RowSet(found.columns) if known else RowSet({}, frozenset((id(function),)))


def listed_rows(names: Bindings, node: ast.AST | None, made: ast.List | ast.ListComp) -> RowSet | None:
    """Return the rows of a list: what a comprehension makes, or what is appended to an empty one."""
    body = RowFunction(names, ast.Lambda(ast.arguments([], [], None, [], [], None, []), ast.Constant(None)), batched=False)
    if isinstance(made, ast.ListComp):
        found = body.value(made.elt)
    elif isinstance(node, ast.Name) and not made.elts:
        calls = [one for one in names.calls if last(one) == "append" and len(one.args) == 1]
        own = [one for one in calls if isinstance(one.func, ast.Attribute) and is_named(one.func.value, node.id)]
        found = joined(body.value(one.args[0]) for one in own) if own else UNKNOWN
    else:
        return None
    opens = frozenset() if found.closed else frozenset((id(made),))
    return RowSet(found.columns, opens) if found.kind == "rows" else None


def own_rows(names: Bindings, cls: ast.ClassDef) -> tuple[RowSet | None, RowFunction | None]:
    """Return the rows of a data set of the script's own class, and the function that makes them."""
    methods = {one.name: one for one in cls.body if isinstance(one, ast.FunctionDef)}
    bases = [ast.unparse(one).rpartition(".")[2] for one in cls.bases]
    if "__getitem__" not in methods or bases not in ([], ["Dataset"]):
        return None, None
    body = RowFunction(names, methods["__getitem__"], batched=False)
    made: Form = body.result([UNKNOWN])
    sized = "__len__" in methods
    if made.kind == "tuple":
        return RowSet({}, item="tuple", sized=sized), body
    if made.kind != "rows" and sized:
        return None, body
    opens = frozenset() if made.closed else frozenset((id(cls),))
    return RowSet(made.columns, opens, sized=sized, tensors=True), body
