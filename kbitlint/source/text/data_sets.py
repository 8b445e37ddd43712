"""Form and columns of a script's data sets, read from the text: rows, splits, streams."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, is_open, keyword

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings

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
