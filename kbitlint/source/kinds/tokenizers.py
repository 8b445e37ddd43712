"""What a script asks of a tokenizer that its checkpoint does not have, and what a model cannot read of it."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import TYPE_CHECKING

from kbitlint.source.kinds.kind import Kind
from kbitlint.upstream.families import facts_of
from kbitlint.upstream.objects.returns import MODEL, PEFT_MODEL, TOKENIZER
from kbitlint.upstream.special_tokens import STARTED, lacks_template, template_of_name, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: the source of a text that a chat template has made
CHAT_TEXT = "apply_chat_template"
#: vocabularies of tokenizers that differ by more than this share are different ones, and not one with further tokens
_GROWN = 0.2
#: the last token of a turn in each chat template, which the tokenizers of other families lack
_ENDS = {"ChatML": "<|im_end|>", "Llama 3": "<|eot_id|>", "Gemma": "<end_of_turn>", "Phi 3": "<|end|>"}
#: organisations whose tokenizers are the families' own
_ORIGINALS = ("meta-llama/", "Qwen/", "google/", "mistralai/", "microsoft/")
#: words of code that adds tokens
_ADDERS = ("add_tokens", "add_special_tokens", "chat_format", "clone_chat_template", "chat_template_path", "unsloth")
_ONE_ROW = re.compile(r"per_device_train_batch_size\s*=\s*1\b|packing\s*=\s*True|batch_size\s*=\s*1\b")
_PADS = ("True", "'longest'", "'max_length'", '"longest"', '"max_length"')


def given(kind: Kind, mark: str, line: int) -> Kind:
    """Return the kind of a tokenizer that has been given something; a later padding token replaces an earlier one."""
    rest = tuple(one for one in kind.marks if "pad" not in one[0] or "pad" not in mark)
    return dataclasses.replace(kind, marks=(*rest, (mark, line)))


def after_assignment(kind: Kind, attribute: str, value: ast.expr, owner: str, line: int) -> Kind:
    """Return the kind of a tokenizer after an assignment to one of its attributes."""
    if attribute == "chat_template":
        return given(kind, "template", line)
    if attribute == "padding_side":
        side = isinstance(value, ast.Constant) and value.value == "right"
        rest = dataclasses.replace(kind, marks=tuple(one for one in kind.marks if one[0] != "right"))
        return given(rest, "right", line) if side else rest
    if attribute not in ("pad_token", "pad_token_id"):
        return kind
    unknown = ast.unparse(value) == f"{owner}.unk_token" and kind.text and not kind.marked("grown")
    known = facts_of(kind.text) if unknown else None
    lacks = known is not None and known.family is not None and tokens_of(known).unk is None
    return given(kind, "no pad" if lacks else "pad", line)


def after_call(kind: Kind, method: str, node: ast.Call) -> Kind:
    """Return the kind of a tokenizer after a call of one of its methods that adds tokens."""
    if method == "add_tokens":
        return given(kind, "grown", node.lineno)
    if method != "add_special_tokens":
        return kind
    first = node.args[0] if node.args else None
    keys = [one.value for one in first.keys if isinstance(one, ast.Constant)] if isinstance(first, ast.Dict) else []
    if keys == ["pad_token"] and isinstance(first, ast.Dict) and isinstance(first.values[0], ast.Constant):
        token = str(first.values[0].value)
        words = tokens_of(facts_of(kind.text)) if kind.text else None
        known = words is not None and token in (
            token_of[0] for token_of in (words.bos, words.eos, words.unk, words.pad) if token_of
        )
        return given(kind, "pad" if known or token.startswith("<|") or not kind.text else "new pad", node.lineno)
    return given(given(kind, "grown", node.lineno), "pad", node.lineno)


def chat_text(kind: Kind, node: ast.Call) -> Kind | None:
    """Return the text that a chat template makes, which starts with the first token of the checkpoint, if it has one."""
    whole = next((one.value for one in node.keywords if one.arg == "tokenize"), None)
    if not isinstance(whole, ast.Constant) or whole.value is not False:
        return None
    known = facts_of(kind.text) if kind.text and not kind.marked("template") else None
    starts = known is not None and known.family is not None and tokens_of(known).bos is not None
    return Kind("str", source=CHAT_TEXT if starts and template_of_name(kind.text) in STARTED else "")


def asked(kind: Kind, method: str, node: ast.Call) -> tuple[str, int] | None:
    """Return what a call asks of a tokenizer that lacks it, and the line of the cause; None if it has it."""
    keywords = {one.arg: one.value for one in node.keywords}
    if None in keywords:
        return None
    lacks = method == "apply_chat_template" and bool(kind.text) and lacks_template(kind.text)
    if lacks and not kind.marked("template") and "chat_template" not in keywords:
        return "template", node.lineno
    pads = method == "collator" or (
        method == "__call__" and "padding" in keywords and ast.unparse(keywords["padding"]) in _PADS
    )
    if pads and kind.marked("no pad"):
        return "padless", kind.marked("no pad")
    return None


def mismatches(kinds: Iterable[Kind | None], text: str) -> Iterator[tuple[str, int, str]]:
    """Yield what a trainer's model cannot read of its tokenizer: (kind of fault, line, detail).

    Args:
        kinds: The kinds of the trainer's arguments.
        text: The text of the script.
    """
    found = [one for one in kinds if one is not None]
    yield from _foreign_end(found, text)
    model = next((one for one in found if one.name in (MODEL, PEFT_MODEL) and one.text), None)
    tokenizers = [one for one in found if one.name == TOKENIZER] + [one.owner for one in found if one.owner is not None]
    if model is None or "resize_token_embeddings" in text or "get_input_embeddings" in text:
        return
    known = facts_of(model.text)
    for one in tokenizers:
        if one is None or not one.text:
            continue
        own = facts_of(one.text)
        if not own.vocabulary or not known.vocabulary:
            continue
        if abs(own.vocabulary - known.vocabulary) > _GROWN * max(own.vocabulary, known.vocabulary):
            yield "vocabulary", one.line, f"{one.text} has {own.vocabulary} tokens, and {model.text} {known.vocabulary}"
            return
        line = one.marked("new pad")
        full = own.vocabulary == known.vocabulary == tokens_of(own).size and own.vocabulary in (32000, 128256)
        if line and full and _ONE_ROW.search(text) is None:
            yield "beyond", line, f"{known.vocabulary}"
            return


def _foreign_end(found: list[Kind], text: str) -> Iterator[tuple[str, int, str]]:
    """Yield an ``eos_token`` of the arguments that is a mark of another family than that of the tokenizer or the model."""
    args = next((one for one in found if one.name.startswith("trl.") and one.name.endswith("Config") and one.text), None)
    named = [one.text for one in found if one.name in (MODEL, PEFT_MODEL, TOKENIZER, "str") and one.text]
    if args is None or not named or any(word in text for word in _ADDERS):
        return
    own, ends = template_of_name(named[0]), {one: family for family, one in _ENDS.items()}
    family = ends.get(args.text, "")
    if own and family and own != family and named[0].startswith(_ORIGINALS):
        yield "foreign end", args.line, f"{args.text} is no token of {named[0]}"
