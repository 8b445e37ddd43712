"""Rows that the trainers of TRL cannot use."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, is_open, items, keyword
from kbitlint.source.text.row_encodings import tokenizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings
    from kbitlint.source.text.row_sets import RowSets


def online(names: Bindings, sets: RowSets, call: ast.Call) -> Iterator[DataUse]:
    """Yield rows without prompts, and columns that a reward function takes and the rows lack."""
    found = sets.of(keyword(call, "train_dataset"))
    if found is None or found.opens or not found.columns:
        return
    if "prompt" not in found.columns:
        yield DataUse("column missing", call.lineno, "prompt")
        return
    rewards, _ = names.value(keyword(call, "reward_funcs"))
    for one in rewards.elts if isinstance(rewards, (ast.List, ast.Tuple)) else [rewards]:
        function = names.function(one)
        if not isinstance(function, ast.FunctionDef):
            continue
        needed = [one.arg for one in function.args.args[: len(function.args.args) - len(function.args.defaults)]]
        known = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments", "self"}
        lacking = [one for one in needed if one not in known and one not in found.columns]
        if lacking:
            yield DataUse("column of rewards missing", function.lineno, lacking[0])


def texts(names: Bindings, sets: RowSets, call: ast.Call) -> Iterator[DataUse]:
    """Yield rows of texts that SFTTrainer cannot read, or that end with the beginning of an answer."""
    found = sets.of(keyword(call, "train_dataset"))
    args, _ = names.value(keyword(call, "args"))
    if not isinstance(args, ast.Call) or is_open(args):
        return
    form = keyword(call, "formatting_func")
    if found is None or form is not None or keyword(call, "data_collator") is not None:
        return
    options, _ = names.value(keyword(args, "dataset_kwargs"))
    if options is not None:
        raw = ("input_ids" not in found.columns and not found.opens) or (not tokenizes(names) and found.transform is None)
        if raw and is_constant(items(options).get("skip_prepare_dataset"), value=True):
            yield DataUse("rows not prepared", call.lineno)
        return
    field = keyword(args, "dataset_text_field")
    wanted = field.value if isinstance(field, ast.Constant) else None if field is not None else "text"
    text = found.columns.get(str(wanted))
    if text is not None and text.begun:
        yield DataUse("generation prompt learned", text.begun)
    others = {"messages", "conversations", "prompt", "completion", "input_ids", wanted}
    if isinstance(wanted, str) and found.columns and not found.opens and not set(found.columns) & others:
        yield DataUse("column missing", call.lineno, wanted)
