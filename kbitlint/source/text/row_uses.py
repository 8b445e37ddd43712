"""Rows that a Trainer, its collator and its model cannot use."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import walk
from kbitlint.source.text.bindings import is_constant, is_open, keyword, last
from kbitlint.source.text.collators import pads_no_labels
from kbitlint.source.text.loader_rows import PADS, loaded, texts_left
from kbitlint.source.text.required_columns import untyped
from kbitlint.source.text.row_encodings import tokenizes
from kbitlint.source.text.row_sets import RowSets
from kbitlint.source.text.trl_rows import texts
from kbitlint.upstream.data_contracts import FORWARD, PLAIN
from kbitlint.upstream.row_contracts import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings
    from kbitlint.source.text.row_forms import RowSet

#: collators of transformers -> whether they pad the labels of the data
_COLLATORS = {
    "default_data_collator": False, "DefaultDataCollator": False, "DataCollatorWithPadding": False,
    "DataCollatorForLanguageModeling": False, "DataCollatorForSeq2Seq": True, "": False,
}  # fmt: skip
#: those that make labels themselves
_LABELLERS = frozenset(("DataCollatorForLanguageModeling", "DataCollatorForCompletionOnlyLM"))
_STACKS = frozenset(("default_data_collator", "DefaultDataCollator", ""))
#: words of code that changes which columns a Trainer keeps, or which inputs a model takes
_OTHERS = (
    "_signature_columns",
    "def forward",
    "_remove_unused",
    "_prepare_dataset",
    "unsloth",
    "setattr(",
    "def get_train_dataloader",
)
#: words of code whose rows may all have one length
_LEVELLED = ("group_texts", "block_size", "chunk", "truncat_to", "overflow", "np.pad", "F.pad", "functional.pad", "concat")
#: words of code whose model is no decoder
_NO_DECODER = ("Seq2SeqLM", "ForMaskedLM", "ForConditionalGeneration", "ForVision2Seq", "ForImageTextToText")


class Given(NamedTuple):
    """What a Trainer is given."""

    call: ast.Call
    collator: str
    """The collator's class; empty if there is none, ``?`` if it is the script's own."""
    aligned: bool
    """Whether it gets a tokenizer, which pads where there is no collator."""
    removes: bool
    """Whether it removes the columns that the model does not take."""
    single: bool
    """Whether its batches may have one row."""
    methods: dict[str, ast.FunctionDef]
    """The methods that the script's own class has."""


def row_uses(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield each place where rows do not fit what takes them, by their columns and the form of each."""
    sets = RowSets(names)
    for call in names.calls:
        given = _given(names, call)
        if given is not None and id(call) not in names.uncertain:
            yield from _unlabelled_loss(given, text)
            if any(one in text for one in REQUIRED) or "emma" in text:
                yield from untyped(names, call, given.collator, sets.of(keyword(call, "train_dataset")), text)
            for name in ("train_dataset", "eval_dataset"):
                found = sets.of(keyword(call, name))
                if found is not None and (name == "train_dataset" or _evaluates(names, call, text)):
                    yield from _misfits(names, given, found, text, sets.raw)
        elif names.full(call.func) == "torch.utils.data.DataLoader" and not is_open(call) and "ForCausalLM" in text:
            yield from loaded(sets, call, _collator(names, call, "collate_fn"), text)
        elif names.full(call.func) == "trl.SFTTrainer" and not is_open(call):
            yield from texts(names, sets, call)
        elif isinstance(call.func, ast.Attribute) and last(call) in (
            "map",
            "rename_column",
            "remove_columns",
            "select_columns",
        ):
            sets.of(call)
    left = 'padding_side="left"' in text.replace(" ", "").replace("'", '"')
    yield from (
        one for one in sets.faults if one.kind != "mask on padding" or (left and '"right"' not in text.replace("'", '"'))
    )


def _given(names: Bindings, call: ast.Call) -> Given | None:
    """Return what a Trainer of transformers, or of the script's own class of one, is given; None for other calls."""
    made, _ = names.value(call.func) if isinstance(call.func, ast.Name) else (None, 0)
    methods: dict[str, ast.FunctionDef] = {}
    if isinstance(made, ast.ClassDef) and [names.full(one) for one in made.bases] and names.full(made.bases[0]) in PLAIN:
        methods = {one.name: one for one in made.body if isinstance(one, ast.FunctionDef)}
    elif names.full(call.func) not in PLAIN:
        return None
    args, _ = names.value(keyword(call, "args"))
    if (
        is_open(call)
        or not isinstance(args, ast.Call)
        or is_open(args)
        or not names.full(args.func).startswith("transformers.")
    ):
        return None
    size, keeps = keyword(args, "per_device_train_batch_size"), keyword(args, "remove_unused_columns")
    aligned = keyword(call, "processing_class") is not None or keyword(call, "tokenizer") is not None
    single = (
        is_constant(size, 1) or not (size is None or isinstance(size, ast.Constant)) or keyword(args, "auto_find_batch_size")
    )
    removes = (keeps is None or is_constant(keeps, value=True)) and keyword(args, "label_names") is None
    return Given(call, _collator(names, call), aligned, removes, bool(single), methods)


def _collator(names: Bindings, call: ast.Call, name: str = "data_collator") -> str:
    given = keyword(call, name)
    if given is None or is_constant(given, None):
        return ""
    made, _ = names.value(given)
    one = made if isinstance(made, ast.Call) else given
    name = names.full(one.func if isinstance(one, ast.Call) else one)
    known = name.startswith("transformers.") and name.rpartition(".")[2] in _COLLATORS
    if (
        known
        and isinstance(one, ast.Call)
        and (is_open(one) or not (keyword(one, "mlm") is None or is_constant(keyword(one, "mlm"), value=False)))
    ):
        return "?"
    return name.rpartition(".")[2] if known else "?"


def _evaluates(names: Bindings, call: ast.Call, text: str) -> bool:
    """Return whether a Trainer certainly evaluates."""
    args, _ = names.value(keyword(call, "args"))
    when = (keyword(args, "eval_strategy") or keyword(args, "evaluation_strategy")) if isinstance(args, ast.Call) else None
    return (isinstance(when, ast.Constant) and when.value in ("steps", "epoch")) or ".evaluate()" in text


def _misfits(names: Bindings, given: Given, found: RowSet, text: str, raw: set[int]) -> Iterator[DataUse]:
    """Yield what does not fit of the rows that a Trainer is given."""
    line = given.call.lineno
    if found.item == "tuple" and given.collator in _COLLATORS:
        yield DataUse("rows as tuples", line)
    if not found.sized:
        yield DataUse("rows without a length", line)
    if found.item or any(one in text for one in _OTHERS):
        return
    if given.removes:
        relation = _removed(names, found, raw)
        if relation:
            gone = found.needs - FORWARD if found.transform is not None else found.columns
            yield DataUse(relation, line, ", ".join(sorted(gone)[:3]) or "texts")
            return
        yield from _lost(given, found)
    if given.collator == "?" and pads_no_labels(names, given.call, found) and not given.single:
        yield DataUse("labels of unequal length", line)
    if found.transform is not None or given.collator not in _COLLATORS or any(one in text for one in _NO_DECODER):
        return
    if not given.removes and given.collator in PADS and (left := texts_left(found)):
        yield DataUse("texts in batches", line, left)
        return
    yield from _unlabelled(given, found, text)
    yield from _unfit_forms(given, found, text)


def _removed(names: Bindings, found: RowSet, raw: set[int]) -> str:
    """Return the relation by which a Trainer removes all columns; empty if it does not, or if that is not certain."""
    if set(found.columns) & FORWARD:
        return ""
    if found.transform is not None:
        return "columns of a transform" if found.needs - FORWARD else ""
    known = (not found.opens or not tokenizes(names)) and bool(found.columns)
    return "no tokens" if known or (found.opens and found.opens <= raw) else ""


def _lost(given: Given, found: RowSet) -> Iterator[DataUse]:
    """Yield the first column that the script's own loss takes from the inputs, and that a Trainer removes."""
    loss = given.methods.get("compute_loss")
    inputs = loss.args.args[2].arg if loss is not None and len(loss.args.args) > 2 else ""  # self, model, inputs
    for one in loss.body if loss is not None and given.collator in _COLLATORS else ():
        for name, at in _reads(one, inputs) if isinstance(one, (ast.Assign, ast.AnnAssign, ast.Expr)) else ():
            if name not in FORWARD and (name in found.columns or not found.opens):
                yield DataUse("inputs removed", at, name)
                return


def _unlabelled_loss(given: Given, text: str) -> Iterator[DataUse]:
    """Yield the own loss that takes the labels out of the inputs of a decoder, and then reads the loss of its outputs."""
    loss = given.methods.get("compute_loss")
    if loss is None or len(loss.args.args) < 3 or "ForCausalLM" not in text:  # self, model, inputs
        return
    inputs, popped, outputs = loss.args.args[2].arg, False, ""
    for one in loss.body:
        value = one.value if isinstance(one, ast.Assign) else None
        popped = popped or (isinstance(one, (ast.Assign, ast.Expr)) and _pops_labels(one, inputs))
        whole = (
            isinstance(value, ast.Call) and [ast.unparse(word.value) for word in value.keywords] == [inputs] and not value.args
        )
        if popped and whole and isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
            outputs = one.targets[0].id
        read = [
            part
            for part in walk(one)
            if isinstance(part, ast.Attribute) and part.attr == "loss" and isinstance(part.ctx, ast.Load)
        ]
        if outputs and any(ast.unparse(part.value) == outputs for part in read):
            yield DataUse("loss of popped labels", one.lineno)
            return
        if f"{inputs}['labels'] =" in ast.unparse(one):
            return


def _pops_labels(node: ast.stmt, inputs: str) -> bool:
    """Return whether a statement takes the labels out of the inputs."""
    return any(isinstance(one, ast.Call) and ast.unparse(one).startswith(f"{inputs}.pop('labels'") for one in walk(node))


def _reads(node: ast.AST, inputs: str) -> Iterator[tuple[str, int]]:
    """Yield (column, line) of each column that a statement takes from the inputs: ``inputs.pop("weight")``."""
    for one in walk(node):
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "pop" and len(one.args) == 1:
            owner, key = one.func.value, one.args[0]
        elif isinstance(one, ast.Subscript) and isinstance(one.ctx, ast.Load):
            owner, key = one.value, one.slice
        else:
            continue
        if isinstance(owner, ast.Name) and owner.id == inputs and isinstance(key, ast.Constant):
            yield str(key.value), one.lineno


def _unlabelled(given: Given, found: RowSet, text: str) -> Iterator[DataUse]:
    """Yield rows without labels for a decoder and a collator that makes none."""
    if given.collator in _LABELLERS or "compute_loss" in text or "ForCausalLM" not in text or "input_ids" not in found.columns:
        return
    labelled = any(one.startswith("label") for one in found.columns)
    if not labelled and (not found.opens or "label" not in text.replace("label_pad_token_id", "")):
        yield DataUse("no labels", given.call.lineno)


def _unfit_forms(given: Given, found: RowSet, text: str) -> Iterator[DataUse]:
    """Yield rows whose labels or ids have a form that the collator or the model refuses."""
    line, labels, ids = given.call.lineno, found.columns.get("labels"), found.columns.get("input_ids")
    deep = all(name in found.columns and found.columns[name].deep for name in ("input_ids", "attention_mask"))
    if ids is not None and deep and (ids.length == "fixed" or not given.single) and "[0]" not in text and "squeeze" not in text:
        yield DataUse("tensors in rows", ids.deep)
        return
    if labels is None or "ForCausalLM" not in text:
        return
    if labels.shifted and ids is not None and not ids.shifted and "compute_loss" not in text:
        yield DataUse("labels shifted", labels.shifted)
    if labels.kind == "text":
        yield DataUse("labels as text", line)
    elif labels.kind == "number" and given.collator not in _LABELLERS and "compute_loss" not in text:
        yield DataUse("one label for a text", line)
    uneven = labels.kind == "ids" and labels.length == "own" and not any(one in text for one in _LEVELLED)
    if uneven and not given.single and not _COLLATORS[given.collator]:
        stacks = given.collator in _STACKS and not given.aligned
        yield DataUse("rows of unequal length" if stacks else "labels of unequal length", line)
