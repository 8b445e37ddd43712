"""What a Trainer is given, read from the text: data, callbacks and functions that its own code cannot use."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import library_name
from kbitlint.source.text.bindings import is_constant, is_open, keyword, last, returned, stored
from kbitlint.source.text.data_sets import form
from kbitlint.source.text.own_results import EVALUATES
from kbitlint.source.text.pad_tokens import checkpoint_of
from kbitlint.source.text.reward_functions import reward_uses
from kbitlint.source.text.row_sets import columns
from kbitlint.upstream.data_contracts import ONLINE, PLAIN
from kbitlint.upstream.special_tokens import lacks_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings

#: trainer -> the groups of columns, of which it reads one
_COLUMNS = {
    "trl.DPOTrainer": (("chosen", "rejected"),),
    "trl.RewardTrainer": (("chosen", "rejected"),),
    "trl.KTOTrainer": (("completion", "label"), ("chosen", "rejected")),
    "trl.ORPOTrainer": (("chosen", "rejected"),),
    "trl.CPOTrainer": (("chosen", "rejected"),),
    "trl.OnlineDPOTrainer": (("prompt",),),
    "trl.GRPOTrainer": (("prompt",),),
    "trl.RLOOTrainer": (("prompt",),),
    "trl.SFTTrainer": (("text",), ("messages",), ("conversations",), ("prompt", "completion"), ("input_ids",)),
}
#: words of code that may give a tokenizer a chat template
_TEMPLATES = ("chat_template", "chat_format", "unsloth", "setattr(")
#: words of code that puts something in the place of -100, or whose rows need no padding
_LEVELLED = ("ignore_index", "'max_length'", '"max_length"', "block_size", "group_texts", "patch")


def trainer_uses(names: Bindings, call: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield what one Trainer is given and cannot use.

    Args:
        names: The bindings of the file.
        call: The call that makes the Trainer, without ``**``.
        text: The file's text.
    """
    name, data = library_name(names.full(call.func)), keyword(call, "train_dataset")
    if form(names, data) in ("splits", "streamed splits"):
        yield DataUse("splits for rows", data.lineno if data is not None else call.lineno)
    have = columns(names, data) if name in _COLUMNS else None
    own = keyword(call, "data_collator") is None
    if have is not None and own and not _reads_others(names, call):
        groups = _groups(names, call, name)
        lacking = [[one for one in group if not any(_is_column(own, one) for own in have)] for group in groups]
        if all(lacking):  # of the group of which most is there
            nearest = max(range(len(lacking)), key=lambda index: len(groups[index]) - len(lacking[index]))
            yield DataUse("column missing", call.lineno, lacking[nearest][0])
    yield from _stopped(names, call, text)
    yield from _lost(names, call, text)
    yield from _decoded(names, call, text)
    if name in ONLINE:
        yield from reward_uses(names, call)
    if name == "trl.SFTTrainer":
        yield from _templateless(names, call, text, have)
        yield from _unspoken(names, call, have)
        if own:
            yield from _without_completion(names, call, have)


def _groups(names: Bindings, call: ast.Call, name: str) -> tuple[tuple[str, ...], ...]:
    """Return the groups of columns of which a trainer reads one, with the column of texts that its arguments name."""
    args, _ = names.value(keyword(call, "args"))
    field = keyword(args, "dataset_text_field") if isinstance(args, ast.Call) else None
    named = field.value if isinstance(field, ast.Constant) and isinstance(field.value, str) else "text"
    return tuple((named,) if group == ("text",) else group for group in _COLUMNS[name])


def _is_column(own: str, name: str) -> bool:
    """Return whether a column has a name, or is what a tokenizer made of it: ``prompt_input_ids``."""
    return own == name or (own.startswith(f"{name}_") and own.endswith(("_ids", "_mask", "_labels")))


def _reads_others(names: Bindings, call: ast.Call) -> bool:
    """Return whether a Trainer may read other columns than its own: those of a function, of a name, or none at all."""
    if any(keyword(call, one) is not None for one in ("formatting_func", "dataset_text_field", "environment_factory")):
        return True
    args, _ = names.value(keyword(call, "args"))
    if library_name(names.full(call.func)) != "trl.SFTTrainer":
        return False
    if args is None:
        return keyword(call, "args") is not None
    if not isinstance(args, ast.Call) or is_open(args) or keyword(args, "dataset_kwargs") is not None:
        return True
    field = keyword(args, "dataset_text_field")
    return field is not None and not isinstance(field, ast.Constant)


def _without_completion(names: Bindings, call: ast.Call, have: set[str] | None) -> Iterator[DataUse]:
    """Yield ``completion_only_loss`` for rows that certainly have no completion: it has no effect."""
    args, _ = names.value(keyword(call, "args"))
    asked = keyword(args, "completion_only_loss") if isinstance(args, ast.Call) else None
    if asked is None or have is None or not is_constant(asked, value=True) or _reads_others(names, call):
        return
    if "text" in have and not any("completion" in one for one in have):
        yield DataUse("completions of whole texts", asked.lineno)


def _unspoken(names: Bindings, call: ast.Call, have: set[str] | None) -> Iterator[DataUse]:
    """Yield ``assistant_only_loss`` for rows that certainly are whole texts, without messages."""
    args, _ = names.value(keyword(call, "args"))
    asked = keyword(args, "assistant_only_loss") if isinstance(args, ast.Call) else None
    texts = have is not None and have <= {"text"} and keyword(call, "formatting_func") is None
    if asked is not None and texts and is_constant(asked, value=True):
        yield DataUse("assistant of whole texts", asked.lineno)


def _templateless(names: Bindings, call: ast.Call, text: str, have: set[str] | None) -> Iterator[DataUse]:
    """Yield rows of messages for a tokenizer that has no chat template, and that the script gives none."""
    if have is None or not have & {"messages", "conversations"} or any(one in text for one in _TEMPLATES):
        return
    name = checkpoint_of(names, keyword(call, "processing_class") or keyword(call, "tokenizer"), call)
    if lacks_template(name) and keyword(call, "formatting_func") is None:
        yield DataUse("messages without a template", call.lineno, name)


def _stopped(names: Bindings, call: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield an EarlyStoppingCallback whose metric or evaluation the arguments leave out."""
    given, _ = names.value(keyword(call, "callbacks"))
    args, _ = names.value(keyword(call, "args"))
    stops = [names.value(one)[0] for one in given.elts] if isinstance(given, (ast.List, ast.Tuple)) else []
    stop = [one for one in stops if isinstance(one, ast.Call) and names.full(one.func) == "transformers.EarlyStoppingCallback"]
    if not stop or not isinstance(args, ast.Call) or is_open(args) or len(args.args) > 1:
        return
    if not names.full(args.func).startswith(("transformers.", "trl.")) or "setattr(" in text:
        return
    if any(
        f".{one}" in text
        for one in ("eval_strategy", "evaluation_strategy", "metric_for_best", "load_best_model", "set_", "remove_callback")
    ):
        return
    when = keyword(args, "eval_strategy") or keyword(args, "evaluation_strategy")
    best = keyword(args, "load_best_model_at_end")
    if when is None or is_constant(when, "no"):
        yield DataUse("early stopping without metric", stop[0].lineno, "eval_strategy")
    elif (best is None or is_constant(best, value=False)) and not _names_metric(args):
        yield DataUse("early stopping without metric", stop[0].lineno, "metric_for_best_model")


def _names_metric(args: ast.Call) -> bool:
    """Return whether training arguments name the metric of the best model, or may: two settings make it the loss."""
    if keyword(args, "metric_for_best_model") is not None:
        return True
    for name, makes in (("lr_scheduler_type", "reduce_lr_on_plateau"), ("save_strategy", "best")):
        value = keyword(args, name)
        if value is not None and (not isinstance(value, ast.Constant) or value.value == makes):
            return True
    return False


def _lost(names: Bindings, call: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield a ``compute_loss_func`` that returns the loss of a model that was called without labels."""
    function = names.function(keyword(call, "compute_loss_func"))
    if names.full(call.func) not in PLAIN or function is None or not function.args.args or "def forward" in text:
        return
    if "ForCausalLM" not in text and "ForSequenceClassification" not in text:
        return
    outputs = function.args.args[0].arg
    values = [names.value(one)[0] for one in returned(function)]
    lost = [one for one in values if one is not None and ast.unparse(one) in (f"{outputs}.loss", f"{outputs}['loss']")]
    if lost and len(lost) == len(values) and outputs not in stored(function):
        yield DataUse("loss of no labels", getattr(lost[0], "lineno", function.lineno))


def _decoded(names: Bindings, call: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield labels that ``compute_metrics`` decodes as they are, where the collator pads them with -100."""
    function = names.function(keyword(call, "compute_metrics"))
    collator, _ = names.value(keyword(call, "data_collator"))
    if (
        not isinstance(function, ast.FunctionDef)
        or not isinstance(collator, ast.Call)
        or not any(one in text for one in EVALUATES)
    ):
        return
    if last(collator) not in ("DataCollatorForSeq2Seq", "DataCollatorForLanguageModeling") or is_open(collator):
        return
    if keyword(call, "eval_dataset") is None or any(one in text.lower() for one in _LEVELLED):
        return
    if not _pads_with_ignored(collator) or "label_pad" in text.replace("label_pad_token_id", ""):
        return
    labels = _labels(function)
    if _replaces(function, labels):
        return
    for one in ast.walk(function):
        if isinstance(one, ast.Call) and last(one) == "batch_decode" and one.args and ast.unparse(one.args[0]) in labels:
            yield DataUse("ignored labels decoded", one.lineno, "the metric" if function.name == "__call__" else function.name)
            return


def _pads_with_ignored(collator: ast.Call) -> bool:
    """Return whether a collator certainly pads labels with -100, as it does by default."""
    pad = keyword(collator, "label_pad_token_id")
    return pad is None or ast.unparse(pad) == "-100"


def _replaces(function: ast.FunctionDef, labels: set[str]) -> bool:
    """Return whether a statement of a function compares the labels, or names them together with -100."""
    for one in ast.walk(function):
        if not isinstance(one, ast.stmt) or isinstance(one, (ast.FunctionDef, ast.If, ast.For, ast.With, ast.Try)):
            continue
        parts = [part for part in ast.walk(one) if isinstance(part, ast.expr)]
        if "-100" in ast.unparse(one) and any(ast.unparse(part) in labels for part in parts):
            return True
        compared = [side for part in parts if isinstance(part, ast.Compare) for side in (part.left, *part.comparators)]
        if any(ast.unparse(part) in labels for side in compared for part in ast.walk(side) if isinstance(part, ast.expr)):
            return True
    return False


def _labels(function: ast.FunctionDef) -> set[str]:
    """Return the expressions that are the labels of an evaluation, as they are, in ``compute_metrics``."""
    pair = next((one.arg for one in function.args.args if one.arg != "self"), "")
    found, stores = {f"{pair}.label_ids"}, stored(function)
    for one in ast.walk(function):
        if not isinstance(one, ast.Assign) or len(one.targets) != 1:
            continue
        target, value = one.targets[0], ast.unparse(one.value)
        if isinstance(target, ast.Tuple) and value == pair and len(target.elts) > 1:
            found.add(ast.unparse(target.elts[1]))
        elif value == f"{pair}.label_ids":
            found.add(ast.unparse(target))
    return {one for one in found if stores.count(one) <= 1} if pair not in stores else set()
