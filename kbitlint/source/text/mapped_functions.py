"""Functions that a script passes to ``map``, read from the text: a batch taken for one example, token ids that are none."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import Bindings, is_constant, is_open, items, keyword, last, returned

if TYPE_CHECKING:
    from collections.abc import Iterator

#: methods of texts that lists lack
TEXT_METHODS = frozenset(
    ("strip", "split", "lower", "upper", "replace", "startswith", "endswith", "format", "lstrip", "rstrip", "find")
)


def batched(names: Bindings, call: ast.Call) -> Iterator[DataUse]:
    """Yield the first place where a function of a batched ``map`` takes a column, a list, for one text."""
    function, _ = names.value(call.args[0] if call.args else keyword(call, "function"))
    if not is_constant(keyword(call, "batched"), value=True) or not isinstance(function, (ast.FunctionDef, ast.Lambda)):
        return
    if keyword(call, "input_columns") is not None or not function.args.args:
        return
    batch = function.args.args[0].arg
    nodes = list(walk(function))
    if any(isinstance(node, ast.Name) and node.id == batch and isinstance(node.ctx, ast.Store) for node in nodes):
        return
    for node in nodes:
        column = _column_as_text(node, batch)
        if column is not None:
            yield DataUse("column as text", column.lineno, ast.unparse(column))
            return
    for given in returned(function):
        for key, value in items(given).items() if isinstance(given, ast.Dict) else ():
            if _is_one_text(names, value):
                yield DataUse("text for a batch", value.lineno, key)
                return


def _is_one_text(names: Bindings, node: ast.expr) -> bool:
    """Return whether an expression certainly is one text: an f-string, ``template.format(...)``, a text and what is added."""
    value, _ = names.value(node)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in ("format", "join"):
        owner, _ = names.value(value.func.value)
        return isinstance(owner, ast.Constant) and isinstance(owner.value, str)
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _is_one_text(names, value.left) or _is_one_text(names, value.right)
    return isinstance(value, ast.JoinedStr)


def _column_as_text(node: ast.AST, batch: str) -> ast.expr | None:
    """Return the column of a batch that an operation takes for one text; None if the node is no such operation."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if _is_column(one, batch) and _is_text(other):
                return one
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TEXT_METHODS:
        return node.func.value if _is_column(node.func.value, batch) else None
    return None


def _is_column(node: ast.expr, batch: str) -> bool:
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Constant):
        return False
    return isinstance(node.slice.value, str) and isinstance(node.value, ast.Name) and node.value.id == batch


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ("eos_token", "bos_token")
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def encodings(names: Bindings) -> Iterator[DataUse]:
    """Yield each use of the result of ``apply_chat_template`` as a list of token ids."""
    if not any(last(call) == "apply_chat_template" and _gives_encoding(call) for call in names.calls):
        return
    for function in names.functions:
        for node in walk(function):
            used = [value for key, value in items(node).items() if key == "input_ids"] if isinstance(node, ast.Dict) else []
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                used = [one for one, other in ((node.left, node.right), (node.right, node.left)) if isinstance(other, ast.List)]
            for one in used:
                call, _ = names.value(one)
                if isinstance(call, ast.Call) and last(call) == "apply_chat_template" and _gives_encoding(call):
                    yield DataUse("encoding as token ids", call.lineno)


def _gives_encoding(call: ast.Call) -> bool:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    named = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    whole = keyword(call, "tokenize")
    return (
        "tok" in named
        and not is_open(call)
        and keyword(call, "return_dict") is None
        and (whole is None or is_constant(whole, value=True))
    )
