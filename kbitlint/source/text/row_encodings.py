"""What a tokenizer makes of texts: which columns, and which of them have one length."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.text.bindings import is_constant, is_open, keyword, last
from kbitlint.source.text.row_forms import TEXT, UNKNOWN, Form, column, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.source.text.bindings import Bindings

#: arguments that give an encoding further columns, or a row more than once
_MORE = ("text_target", "text_pair_target", "return_overflowing_tokens", "return_offsets_mapping", "return_special_tokens_mask")
_TENSORS = ("pt", "np", "tf")


def is_tokenizer(names: Bindings, node: ast.expr) -> bool:
    """Return whether an expression is a tokenizer, by what it holds or, if that is not in the file, by its name."""
    if isinstance(node, ast.Attribute):
        held = names.attributes.get(node.attr, ())
        named = [one for one in held if isinstance(one, (ast.Name, ast.Call))]
        return node.attr == "tokenizer" or (bool(held) and len(named) == len(held) and all(_holds(names, one) for one in named))
    return _holds(names, node)


def _holds(names: Bindings, node: ast.expr) -> bool:
    """Return whether a name or a call is a tokenizer."""
    if isinstance(node, ast.Call):
        return _loads(names, node)
    if not isinstance(node, ast.Name):
        return False
    made, _ = names.value(node)
    if isinstance(made, ast.Call) and last(made) == "from_pretrained" and isinstance(made.func, ast.Attribute):
        return _loads(names, made)
    return node.id in ("tokenizer", "tok") and not isinstance(made, (ast.FunctionDef, ast.Lambda, ast.ClassDef))


def _loads(names: Bindings, call: ast.Call) -> bool:
    """Return whether a call loads a tokenizer."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) and last(call) == "from_pretrained" else None
    return owner is not None and "Tokenizer" in names.full(owner)


def encoded(call: ast.Call, given: Sequence[Form], name: str, *, batched: bool) -> Form:
    """Return the form of what a call of a tokenizer, or of one of its methods, returns.

    Args:
        call: The call.
        given: The forms of its positional arguments.
        name: The last part of the name of what is called.
        batched: Whether a column of the rows is a list.
    """
    if name == "apply_chat_template":
        begun = is_constant(keyword(call, "add_generation_prompt"), value=True)
        text = Form("text", templated=call.lineno, begun=call.lineno if begun else 0)
        return text if is_constant(keyword(call, "tokenize"), value=False) else UNKNOWN
    if name in ("decode", "convert_ids_to_tokens"):
        return TEXT if name == "decode" else UNKNOWN
    first = given[0] if given else UNKNOWN
    many = first.kind == "column" or (bool(call.args) and isinstance(call.args[0], (ast.List, ast.ListComp)))
    if is_open(call) or (batched and not many):
        return _ids(call, many=False) if name == "encode" and first.kind == "text" and not is_open(call) else UNKNOWN
    ids = _ids(call, many=many)
    if name == "encode":
        return ids
    if name in ("pad", "batch_decode", "from_pretrained", "save_pretrained", "add_tokens", "add_special_tokens", "tokenize"):
        return UNKNOWN
    if many and not batched:
        return UNKNOWN
    closed = all(keyword(call, one) is None for one in _MORE)
    made = column(ids) if many else ids
    return rows({"input_ids": made, "attention_mask": made}, closed=closed, encoded=True)


def _ids(call: ast.Call, *, many: bool) -> Form:
    """Return the form of the ids of one text."""
    padding, tensors = keyword(call, "padding"), keyword(call, "return_tensors")
    if padding is None or is_constant(padding, value=False) or is_constant(padding, "do_not_pad"):
        length = "own" if keyword(call, "pad_to_max_length") is None else ""
    elif is_constant(padding, "max_length"):
        length = "fixed"
    else:
        length = "own" if not many and isinstance(padding, ast.Constant) else ""
    deep = not many and any(is_constant(tensors, one) for one in _TENSORS)
    return Form("ids", length, deep=call.lineno if deep else 0)


def tokenizes(names: Bindings) -> bool:
    """Return whether a file makes token ids anywhere: in a call that may be a tokenizer's."""
    called = [last(call).lower() for call in names.calls]
    makers = ("tok", "encod", "processor", "chat_template", "pad")
    return any(any(part in name for part in makers) for name in called if not name.endswith("from_pretrained"))
