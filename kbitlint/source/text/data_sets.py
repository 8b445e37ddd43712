"""Form and columns of a script's data sets, read from the text: rows, splits, streams."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, is_open, items, keyword, last, returned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def

#: methods that return a data set of the same form
_SAME = frozenset(
    ("map", "filter", "shuffle", "rename_column", "rename_columns", "remove_columns", "select_columns", "cast_column")
)
_ROWS = frozenset(("shuffle", "filter", "select", "sort", "take", "skip", "shard"))
#: positional place of ``split`` in ``load_dataset``
_SPLIT = 4
_LONGEST = 30


def form(names: Bindings, node: ast.AST | None) -> str:
    """Return the form of a data set: ``rows``, ``splits``, ``stream``, ``streamed splits``; empty if it is not certain."""
    subscripts, line = 0, 0
    for _ in range(_LONGEST):
        node, line = names.value(node, line)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            subscripts, node = subscripts + 1, node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SAME:
            node = node.func.value
        else:
            break
    found = _loaded(node) if isinstance(node, ast.Call) and names.full(node.func) == "datasets.load_dataset" else ""
    if not subscripts:
        return found
    return {"splits": "rows", "streamed splits": "stream"}.get(found, "") if subscripts == 1 else ""


def _loaded(call: ast.Call) -> str:
    """Return the form of what a call of ``load_dataset`` returns."""
    streamed, split = keyword(call, "streaming"), keyword(call, "split")
    if is_open(call) or len(call.args) > _SPLIT or any(isinstance(one, ast.Starred) for one in call.args):
        return ""
    if not (streamed is None or isinstance(streamed, ast.Constant)) or not (split is None or isinstance(split, ast.Constant)):
        return ""
    stream = is_constant(streamed, value=True)
    if split is None or split.value is None:
        return "streamed splits" if stream else "splits"
    return "stream" if stream else "rows"


def set_uses(names: Bindings) -> Iterator[DataUse]:
    """Yield each certain ``len`` of a streamed data set."""
    for call in names.calls:
        plain = isinstance(call.func, ast.Name) and call.func.id == "len" and len(call.args) == 1
        if plain and id(call) not in names.uncertain and form(names, call.args[0]) == "stream":
            yield DataUse("length of a stream", call.lineno)


def columns(names: Bindings, node: ast.AST | None) -> set[str] | None:
    """Return the columns that a data set may have at most; None if they are not certain."""
    found: set[str] = set()
    for call in names.chain(node):
        name = last(call)
        if name in _ROWS or name in ("train_test_split", "remove_columns"):
            continue
        if name in ("select_columns", "rename_columns", "rename_column"):
            named = _named(names, call)
            if named is None:
                return None
            found |= named
            if name == "select_columns":
                return found
            continue
        if names.full(call.func) in ("datasets.Dataset.from_list", "datasets.Dataset.from_dict"):
            made = _keys(names, _rows(names, call))
            return None if made is None else found | made
        function = names.function(call.args[0]) if name == "map" and call.args else None
        made = _keys(names, returned(function)) if function is not None and not _changes(function) else None
        if made is None:
            return None
        found |= made
        if _removes_all(names, call):
            return found
    return None


def _rows(names: Bindings, call: ast.Call) -> list[ast.expr]:
    """Return the dicts of which ``from_list`` or ``from_dict`` makes a data set; an empty list if they are not certain."""
    given, _ = names.value(call.args[0] if call.args else None)
    if isinstance(given, ast.BinOp) and isinstance(given.op, ast.Mult):  # rows that are repeated
        given = given.left
    if last(call) == "from_dict":
        return [given] if isinstance(given, ast.expr) else []
    if isinstance(given, ast.ListComp):
        return [given.elt]
    return given.elts if isinstance(given, ast.List) else []


def _named(names: Bindings, call: ast.Call) -> set[str] | None:
    """Return the columns that a call selects, or the new names that it gives; None if they are not certain."""
    given, _ = names.value(call.args[-1] if call.args else None)
    texts: list[ast.expr] = [given] if isinstance(given, ast.Constant) else []
    if isinstance(given, (ast.List, ast.Tuple)):
        texts = given.elts
    elif isinstance(given, ast.Dict):
        texts = given.values
    found = {one.value for one in texts if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found if texts and len(found) == len(texts) and not call.keywords else None


def _keys(names: Bindings, given: list[ast.expr]) -> set[str] | None:
    found: set[str] = set()
    for one in given:
        value, _ = names.value(one)
        displayed = isinstance(one, ast.Dict) and value is one and len(items(one)) == len(one.keys)
        called = isinstance(one, ast.Call) and names.full(one.func) == "dict" and not one.args and not is_open(one)
        if not displayed and not called:
            return None
        found |= set(items(one))
    return found if given else None


def _changes(function: Def) -> bool:
    """Return whether a function puts items into a dict: ``map`` keeps those of its argument."""
    stores = any(isinstance(one, ast.Subscript) and isinstance(one.ctx, ast.Store) for one in ast.walk(function))
    return stores or any(isinstance(one, ast.Call) and last(one) in ("update", "setdefault") for one in ast.walk(function))


def _removes_all(names: Bindings, call: ast.Call) -> bool:
    """Return whether a ``map`` removes the columns that its own data set has."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    gone, _ = names.value(keyword(call, "remove_columns"))
    if isinstance(gone, ast.Call) and isinstance(gone.func, ast.Name) and gone.func.id == "list" and len(gone.args) == 1:
        gone = gone.args[0]
    if isinstance(gone, ast.Call) and last(gone) == "keys":
        gone = gone.func.value if isinstance(gone.func, ast.Attribute) else None
    if not isinstance(gone, ast.Attribute) or gone.attr not in ("column_names", "features") or owner is None:
        return False
    named = gone.value.value if isinstance(gone.value, ast.Subscript) else gone.value
    own = owner.value if isinstance(owner, ast.Subscript) else owner
    return isinstance(named, ast.Name) and isinstance(own, ast.Name) and named.id == own.id
