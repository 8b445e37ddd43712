"""Rows that a DataLoader of the script's own loop cannot batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, keyword
from kbitlint.upstream.data_contracts import FORWARD

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from kbitlint.source.text.row_forms import RowSet
    from kbitlint.source.text.row_sets import RowSets

#: collators that make tensors of all columns; the default one leaves texts out
PADS = frozenset(("DataCollatorWithPadding", "DataCollatorForLanguageModeling", "DataCollatorForSeq2Seq"))


def texts_left(found: RowSet) -> str:
    """Return a column of texts that stays in rows of token ids; empty if there is none."""
    texts = sorted(name for name, one in found.columns.items() if one.kind == "text" and name not in FORWARD)
    return texts[0] if texts and "input_ids" in found.columns else ""


def loaded(sets: RowSets, call: ast.Call, collator: str, text: str) -> Iterator[DataUse]:
    """Yield the rows of a DataLoader that its collate function cannot batch.

    Args:
        sets: The data sets of the file.
        call: The call of ``DataLoader``.
        collator: The class of the collator; empty for torch's own, ``?`` for the script's.
        text: The file's text.
    """
    found = sets.of(call.args[0] if call.args else keyword(call, "dataset"))
    if found is None or found.item or found.transform is not None or collator == "?" or "setattr(" in text:
        return
    left = texts_left(found)
    if left and collator in PADS:
        yield DataUse("texts in batches", call.lineno, left)
        return
    ids = found.columns.get("input_ids")
    if collator or ids is None or ids.kind != "ids":
        return
    size = keyword(call, "batch_size") or (call.args[1] if len(call.args) > 1 else None)
    several = size is not None and not is_constant(size, 1)
    if ids.length == "own" and several:
        yield DataUse("stacked rows of unequal length", call.lineno)
    elif not found.tensors and not ids.deep and ids.length == "fixed" and "stack(" not in text:
        yield DataUse("lists in batches", call.lineno)
