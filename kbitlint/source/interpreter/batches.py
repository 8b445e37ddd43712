"""What is sure of the data on which a model is trained: token ids and labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.training import Batch
from kbitlint.source.interpreter.objects import Constant, Object, Record, Sequence, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

_IGNORED = -100


def batch_of(arguments: Record) -> Batch | None:
    """Return what is sure of the token ids and labels among arguments of a model, or columns of data; None if nothing is."""
    tokens, labels = arguments.get("input_ids" if "input_ids" in arguments.items else "0"), arguments.get("labels")
    largest = max(_numbers(tokens, "peak"), default=None)
    lowest, highest = list(_numbers(labels, "low")), list(_numbers(labels, "high"))
    ignored = bool(lowest) and set(lowest) == set(highest) == {_IGNORED}
    shape = tokens.shape if isinstance(tokens, Tensor) else None
    rows = shape[0] if shape is not None and len(shape) > 1 else None
    return Batch(largest, ignored, rows) if ignored or largest is not None or rows else None


def _numbers(value: Object, name: str) -> Iterator[int]:
    """Yield a bound of a tensor, or the numbers of a list of whole numbers; nothing if one of them is not known."""
    if isinstance(value, Tensor):
        bound = getattr(value, name)
        yield from () if bound is None else (bound,)
    elif isinstance(value, Sequence):
        found = [whole(one) for one in value.values]
        if None not in found:
            yield from (number for number in found if number is not None)


def batch_of_data(arguments: Record) -> Batch | None:
    """Return what is sure of the data that a Trainer gets; None if nothing is. A collator, or a loss, may choose labels."""
    data = arguments.get("train_dataset")
    if not isinstance(data, Record) or data.callee != "datasets.Dataset":
        return None
    batch = batch_of(data)
    chosen = {"data_collator", "compute_loss_func", "formatting_func"} & set(arguments.items) or not arguments.complete
    return dataclasses.replace(batch, ignored=False) if batch is not None and chosen else batch


def whole(value: Object) -> int | None:
    """Return a known whole number; None for every other value, and for the default of an option."""
    known = isinstance(value, Constant) and isinstance(value.value, int) and not isinstance(value.value, bool)
    return value.value if known and isinstance(value, Constant) and isinstance(value.value, int) and not value.flag else None
