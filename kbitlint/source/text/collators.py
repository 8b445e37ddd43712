"""Collators that mask tokens, in a script that trains a decoder, read from the text."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import is_constant, is_open, keyword, last
from kbitlint.source.text.labels import label_value
from kbitlint.source.text.row_encodings import is_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def
    from kbitlint.source.text.row_forms import RowSet

#: decoders whose tokenizer has no mask token: neither its class in transformers 5 nor its ``tokenizer_config.json`` names one
_MASKLESS = re.compile(
    r"(meta-llama/|huggyllama/llama|codellama/|TinyLlama/|openlm-research/open_llama|lmsys/vicuna|mistralai/Mi[sx]tral"
    r"|HuggingFaceH4/zephyr|Qwen/Qwen[123]|EleutherAI/(pythia|gpt-neo|gpt-j)|(openai-community/)?gpt2|facebook/opt-"
    r"|bigscience/bloom|tiiuae/falcon|microsoft/[Pp]hi-|bigcode/starcoder|01-ai/Yi|HuggingFaceTB/SmolLM)"
)
#: decoders whose tokenizer has one by its class: ``models/gemma/tokenization_gemma.py``, ``models/cohere``
_MASKED = re.compile(r"(google/(gemma|codegemma)-|CohereForAI/|CohereLabs/)")

#: words of code that leaves padding out of a loss
_MASKS = ("ignore_index", "compute_loss", "cross_entropy", "CrossEntropy")
#: words of code that knows the padding token
_PADDING = ("pad_token", "attention_mask", "eos_token", "<pad>", "[PAD]", "<|endoftext|>", "</s>", "pad_id", "<|im_end|>")
_DECODERS = ("ForCausalLM", "ForConditionalGeneration", "ForVision2Seq", "ForImageTextToText")
_COPIES = frozenset(("clone", "copy", "detach", "long"))


def masked(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield each collator that masks tokens for a decoder; none in a script that loads another kind of model."""
    if "mask_token" in text or "AutoModelForCausalLM" not in text or "AutoModelForMaskedLM" in text:
        return
    for call in names.calls:
        if names.full(call.func) != "transformers.DataCollatorForLanguageModeling" or is_open(call):
            continue
        mlm = keyword(call, "mlm") or (call.args[1] if len(call.args) > 1 else ast.Constant(value=True))
        given = keyword(call, "tokenizer") or (call.args[0] if call.args else None)
        made, _ = names.value(given)
        if not is_constant(mlm, value=True) or not isinstance(made, ast.Call) or last(made) != "from_pretrained":
            continue
        name, _ = names.value(made.args[0]) if made.args else (keyword(made, "pretrained_model_name_or_path"), 0)
        checkpoint = name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""
        if _MASKLESS.match(checkpoint):
            yield DataUse("masked without a token", call.lineno, checkpoint)
        elif _MASKED.match(checkpoint):
            yield DataUse("labels of masked tokens", call.lineno)


def pads_no_labels(names: Bindings, trainer: ast.Call, found: RowSet) -> bool:
    """Return whether a collator of the script pads rows by the tokenizer alone, and labels have the length of their text."""
    function, labels = names.function(keyword(trainer, "data_collator")), found.columns.get("labels")
    if function is None or labels is None or labels.kind != "ids" or labels.length != "own" or "label" in ast.unparse(function):
        return False
    given = [one.arg for one in function.args.args if one.arg != "self"]
    pads = [one for one in walk(function) if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)]
    return any(
        one.func.attr == "pad" and is_tokenizer(names, one.func.value) and bool(one.args) and ast.unparse(one.args[0]) in given
        for one in pads
        if isinstance(one.func, ast.Attribute)
    )


def padded_labels(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield the labels of a collator of the script that hold the padding of its batch, where nothing sets it to -100."""
    if not any(one in text for one in _DECODERS) or any(one in text for one in _MASKS) or "Seq2SeqLM" in text:
        return
    if "batch_size=1)" in text or "batch_size=1," in text:
        return
    for call in names.calls:
        function = names.function(keyword(call, "data_collator") or keyword(call, "collate_fn"))
        masks = function is not None and "-100" in ast.unparse(function)
        if function is None or ("-100" in text and not masks) or (masks and not _masks_others(function, text)):
            continue
        for one in walk(function):
            labels = label_value(one)
            if labels is not None and _holds_padding(names, labels):
                yield DataUse("labels of padding", labels.lineno)
                break


def _masks_others(function: Def, text: str) -> bool:
    """Return whether all that a function sets to -100 are tokens by their id, none of which is the padding token."""
    if any(one in text for one in _PADDING):
        return False
    stores = [one for one in walk(function) if isinstance(one, ast.Assign) and "-100" in ast.unparse(one.value)]
    places = [one.targets[0].slice for one in stores if isinstance(one.targets[0], ast.Subscript)]
    marks = ast.unparse(function).count("-100") == len(stores) == len(places)
    return marks and all(isinstance(one, ast.Compare) and isinstance(one.ops[0], ast.Eq) for one in places)


def _holds_padding(names: Bindings, node: ast.expr) -> bool:
    """Return whether an expression is ids that a call has padded to the longest of a batch, or a copy of them."""
    value: ast.AST | None = node
    for _ in range(5):  # a copy of a copy
        value, _ = names.value(value)
        inner = _inner(value)
        if inner is None:
            break
        value = inner
    if not isinstance(value, ast.Call) or is_open(value):
        return False
    if last(value) == "pad_sequence":
        return True
    pads = keyword(value, "padding")
    longest = is_constant(pads, value=True) or is_constant(pads, "longest") or is_constant(pads, "max_length")
    makes = last(value) in ("pad", "processor") or ast.unparse(value.func).endswith("processor")
    return longest and (is_tokenizer(names, value.func) or makes)


def _inner(value: ast.AST | None) -> ast.expr | None:
    """Return what a value is a copy of, or the encoding whose ids it is; None for another value."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _COPIES:
        return value.func.value
    if isinstance(value, ast.Subscript) and is_constant(value.slice, "input_ids"):
        return value.value
    return value.value if isinstance(value, ast.Attribute) and value.attr == "input_ids" else None
