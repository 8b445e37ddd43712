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


def texts(names: Bindings, sets: RowSets, call: ast.Call) -> Iterator[DataUse]:
    """Yield rows of texts that SFTTrainer cannot read, or that end with the beginning of an answer."""
    found = sets.of(keyword(call, "train_dataset"))
    args, _ = names.value(keyword(call, "args"))
    if found is None or keyword(call, "formatting_func") is not None:
        return
    field = keyword(args, "dataset_text_field") if isinstance(args, ast.Call) else None
    wanted = field.value if isinstance(field, ast.Constant) else None if field is not None else "text"
    text = found.columns.get(str(wanted))
    if text is not None and text.begun:
        yield DataUse("generation prompt learned", text.begun)
    if not isinstance(args, ast.Call) or is_open(args) or keyword(call, "data_collator") is not None:
        return
    options, _ = names.value(keyword(args, "dataset_kwargs"))
    raw = ("input_ids" not in found.columns and not found.opens) or (not tokenizes(names) and found.transform is None)
    if options is not None and raw and is_constant(items(options).get("skip_prepare_dataset"), value=True):
        yield DataUse("rows not prepared", call.lineno)
