"""Columns that a model's forward asks for in training, and that its batches certainly lack."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, keyword, last, returned
from kbitlint.upstream.families import family_of
from kbitlint.upstream.row_contracts import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings
    from kbitlint.source.text.row_forms import RowSet

#: functions that return the model that they are given, with adapters or prepared
_WRAPS = frozenset(("get_peft_model", "prepare_model_for_kbit_training", "prepare"))
#: collators that add no column but labels
_ADD_NONE = frozenset(
    ("default_data_collator", "DefaultDataCollator", "DataCollatorForLanguageModeling", "DataCollatorForSeq2Seq", "")
)
#: classes of the library that load a checkpoint as its own class
_AUTO = ("AutoModelForImageTextToText", "AutoModelForCausalLM")
_LONGEST = 8


def untyped(names: Bindings, trainer: ast.Call, collator: str, found: RowSet | None, text: str) -> Iterator[DataUse]:
    """Yield the collator, or else the Trainer, whose batches lack a column that the model's forward asks for in training.

    Args:
        names: The bindings of the file.
        trainer: The call that makes the Trainer.
        collator: The class of its collator; empty without one, ``?`` for the script's own.
        found: The rows of its data; None if they are not known.
        text: The file's text.
    """
    model = _class_of(names, keyword(trainer, "model") or (trainer.args[0] if trainer.args else None))
    column, relation = REQUIRED.get(model, ("", ""))
    if not column or column in text:
        return
    if collator == "?":
        function = names.function(keyword(trainer, "data_collator"))
        values = [names.value(one)[0] for one in returned(function)] if function is not None else []
        whole = [one for one in values if isinstance(one, ast.Dict) and all(isinstance(key, ast.Constant) for key in one.keys)]
        direct = [one for one in whole if any(is_constant(key, "input_ids") for key in one.keys)]
        if values and len(direct) == len(values):
            yield DataUse(relation, direct[0].lineno, model)
    elif collator in _ADD_NONE and found is not None and "input_ids" in found.columns and not found.opens:
        yield DataUse(relation, trainer.lineno, model)


def _class_of(names: Bindings, node: ast.expr | None) -> str:
    """Return the class of a model that a script loads and gives adapters; empty if it is not certain."""
    value, line = names.value(node)
    for _ in range(_LONGEST):
        if not isinstance(value, ast.Call) or last(value) not in _WRAPS or not value.args:
            break
        value, line = names.value(value.args[0], line if isinstance(value.args[0], ast.Name) and line else 0)
    owner = value.func.value if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) else None
    if not isinstance(value, ast.Call) or last(value) != "from_pretrained" or owner is None:
        return ""
    name = names.full(owner).rpartition(".")[2]
    if name not in _AUTO:
        return name
    given, _ = names.value(value.args[0] if value.args else keyword(value, "pretrained_model_name_or_path"))
    family = family_of(given.value) if isinstance(given, ast.Constant) and isinstance(given.value, str) else None
    kinds = {"gemma3": "Gemma3", "paligemma": "PaliGemma", "gemma4": "Gemma4"}
    kind = kinds.get(family.architecture, "") if family is not None else ""
    return f"{kind}ForConditionalGeneration" if kind and (kind != "PaliGemma" or name == _AUTO[0]) else ""
