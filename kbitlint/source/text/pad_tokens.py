"""Padding of a script's texts, read from the text: a tokenizer without a padding token, rows that are not padded."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, is_open, keyword, last, returned
from kbitlint.upstream.data_contracts import PLAIN
from kbitlint.upstream.special_tokens import lacks_pad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings

_COLLATORS = frozenset(("DataCollatorWithPadding", "DataCollatorForLanguageModeling", "DataCollatorForSeq2Seq"))
#: words of code that may set a padding token
_SETTERS = ("pad_token", "add_special_tokens", "add_tokens", "chat_format", "get_chat_template", "unsloth", "setattr(", "trl")
#: words of code that may make rows of one length
_LEVELLERS = (
    "padding",
    ".pad(",
    "pad_to",
    "block_size",
    "group_texts",
    "with_transform",
    "set_transform",
    "overflowing",
    "filter(",
)
#: texts that are cut to fewer tokens may all have one length
_LONG = 1024
#: libraries that leave a tokenizer as it is
_KEEPERS = ("transformers", "datasets", "peft", "torch")


def unpadded(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield each certain place where padding is asked of a tokenizer without a padding token, or is left out."""
    if not any(one in text for one in _SETTERS):
        for call in names.calls:
            if id(call) not in names.uncertain:
                yield from _asked(names, call)
    labelled = "label" in text or "ForCausalLM" not in text  # rows without labels are refused before
    if labelled and not any(one in text for one in _LEVELLERS):
        for call in names.calls:
            if names.full(call.func) in PLAIN and not is_open(call):
                yield from _unequal(names, call)


def _asked(names: Bindings, call: ast.Call) -> Iterator[DataUse]:
    given = keyword(call, "data_collator") if names.full(call.func) in PLAIN else None
    if given is not None:
        made, _ = names.value(given)
        if isinstance(made, ast.Call) and last(made) in _COLLATORS:
            first = made.args[0] if made.args else keyword(made, "tokenizer")
            if name := _checkpoint(names, first):
                yield DataUse("padding without a token", made.lineno, name)
        return
    padding = keyword(call, "padding")
    asked = is_constant(padding, value=True) or any(is_constant(padding, one) for one in ("max_length", "longest"))
    if asked and isinstance(call.func, ast.Name) and (name := _checkpoint(names, call.func)):
        yield DataUse("padding without a token", call.lineno, name)


def _checkpoint(names: Bindings, tokenizer: ast.AST | None) -> str:
    """Return the checkpoint of a tokenizer that certainly has no padding token; empty for others."""
    name = checkpoint_of(names, tokenizer)
    return name if lacks_pad(name) else ""


def checkpoint_of(names: Bindings, tokenizer: ast.AST | None, taker: ast.Call | None = None) -> str:
    """Return the checkpoint of a tokenizer that no foreign function but ``taker`` is given; empty where it is not certain."""
    made, _ = names.value(tokenizer)
    if not isinstance(tokenizer, ast.Name) or not isinstance(made, ast.Call) or is_open(made) or not made.args:
        return ""
    for call in names.calls:
        owner = names.imports.get(ast.unparse(call.func).partition(".")[0], "transformers").partition(".")[0]
        given = [*call.args, *(one.value for one in call.keywords)]
        if (
            call is not taker
            and owner not in _KEEPERS
            and any(isinstance(one, ast.Name) and one.id == tokenizer.id for one in given)
        ):
            return ""
    name, _ = names.value(made.args[0])
    return str(name.value) if last(made) == "from_pretrained" and isinstance(name, ast.Constant) else ""


def _unequal(names: Bindings, call: ast.Call) -> Iterator[DataUse]:
    """Yield a Trainer whose collator gets rows of unequal length, and does not pad them."""
    args, _ = names.value(keyword(call, "args"))
    if any(keyword(call, one) is not None for one in ("data_collator", "processing_class", "tokenizer")):
        return
    if not isinstance(args, ast.Call) or is_open(args) or names.full(args.func) != "transformers.TrainingArguments":
        return
    size = keyword(args, "per_device_train_batch_size")
    if is_constant(size, 1) or not (size is None or isinstance(size, ast.Constant)) or keyword(args, "auto_find_batch_size"):
        return
    chain = list(names.chain(keyword(call, "train_dataset")))
    maps = [one for one in chain if last(one) == "map"]
    if not chain or last(chain[-1]) != "load_dataset" or len(maps) != 1 or not maps[0].args:
        return
    function = names.function(maps[0].args[0])
    values = [names.value(one)[0] for one in returned(function)] if function is not None else []
    if values and all(isinstance(one, ast.Call) and _tokenizes(names, one) for one in values):
        yield DataUse("rows of unequal length", call.lineno)


def _tokenizes(names: Bindings, call: ast.Call) -> bool:
    """Return whether a call tokenizes texts and leaves them their lengths."""
    made, _ = names.value(call.func)
    longest, _ = names.value(keyword(call, "max_length"))
    if longest is not None and not (
        isinstance(longest, ast.Constant) and isinstance(longest.value, int) and longest.value >= _LONG
    ):
        return False
    if longest is None and keyword(call, "max_length") is not None:
        return False
    owner = made.func.value if isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute) else None
    return owner is not None and names.full(owner) == "transformers.AutoTokenizer" and not is_open(call)
