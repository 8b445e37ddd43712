"""Facts of the first sequences that a Trainer will train on, batched by its own collator."""

from __future__ import annotations

import functools
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.facts.ranks import BatchFacts
from kbitlint.model.attributes import attribute
from kbitlint.model.layers.adapters import base_of, input_embedding

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The sequences that are looked at. A data set whose first ones have no label has none elsewhere, as a rule.
SEQUENCES = 8
#: The label that losses of transformers ignore (``CrossEntropyLoss.ignore_index``).
IGNORED = -100
#: The end of the keys of token ids. TRL's collator for CPO and ORPO has ``chosen_input_ids`` and ``rejected_input_ids``.
_IDS = "input_ids"


def first_batch(trainer: Any, model: nn.Module) -> BatchFacts | None:
    """Return the facts of the first sequences of a Trainer's training data.

    None if there is no Trainer, the data cannot be indexed (a stream), or reading or collating them raises. The random state
    is restored. Nothing runs on the model.
    """
    batch = first_inputs(trainer, SEQUENCES)
    try:
        return None if batch is None else _facts(batch, model, _end_of(trainer))
    except Exception:  # noqa: BLE001  # a collator of the user's may return any object
        return None


def first_inputs(trainer: Any, count: int) -> Any:
    """Return the first rows of a Trainer's training data as its own collator batches them, or None. See ``first_batch``."""
    data = attribute(trainer, "train_dataset")
    if trainer is None or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return None
    try:
        with _random_state_kept():
            return _collator(trainer)([data[index] for index in range(min(count, len(data)))])
    except Exception:  # noqa: BLE001  # code of the user; what it raises, training raises too
        return None


def _collator(trainer: Any) -> Any:
    """Return the collator as Trainer calls it: without the columns that the model does not take."""
    collate = trainer.data_collator
    removes = attribute(attribute(trainer, "args"), "remove_unused_columns") and hasattr(
        trainer, "_get_collator_with_removed_columns"
    )
    return trainer._get_collator_with_removed_columns(collate) if removes else collate  # noqa: SLF001  # Trainer has no public one


def _end_of(trainer: Any) -> int | None:
    tokenizer = attribute(trainer, "processing_class")
    found = attribute(attribute(tokenizer, "tokenizer", tokenizer), "eos_token_id")
    return found if isinstance(found, int) else None


def _facts(batch: Any, model: nn.Module, end: int | None) -> BatchFacts | None:
    """Return the facts of a batch: of its ``input_ids``, and of the others that have labels, such as ``chosen_input_ids``."""
    weight: Any = attribute(input_embedding(base_of(model)), "weight")
    rows = int(weight.shape[0]) if isinstance(weight, Tensor) and weight.dim() == 2 else None
    prefixes = [key.removesuffix(_IDS) for key in batch if isinstance(key, str) and key.endswith(_IDS)]
    prefixes = [prefix for prefix in prefixes if not prefix or f"{prefix}labels" in batch]
    found = [one for prefix in prefixes if (one := _of_sequences(batch, prefix, rows, end)) is not None]
    return functools.reduce(_both, found) if found else None


def _of_sequences(batch: Any, prefix: str, rows: int | None, end: int | None) -> BatchFacts | None:
    """Return the facts of the sequences whose keys start with a prefix, or None if there are none."""
    ids, labels, mask = (batch.get(f"{prefix}{key}") for key in (_IDS, "labels", "attention_mask"))
    if not isinstance(ids, Tensor) or ids.is_floating_point() or not ids.numel():
        return None
    ends = (ids == end) if end is not None else torch.zeros_like(ids, dtype=torch.bool)
    seen = mask.bool() if isinstance(mask, Tensor) and mask.shape == ids.shape else torch.ones_like(ids, dtype=torch.bool)
    ends = ends & seen
    learned = labels.ne(IGNORED) if isinstance(labels, Tensor) and labels.shape == ids.shape else None
    return BatchFacts(
        sequences=int(ids.shape[0]),
        tokens=ids.numel(),
        learned=None if learned is None else int(learned.sum()),
        highest=int(ids.max() if learned is None else torch.maximum(ids, labels).max()),
        rows=rows,
        ends=int(ends.sum()),
        learned_ends=0 if learned is None else int((ends & learned).sum()),
        learned_padding=0 if learned is None else int((learned & ~seen).sum()),
    )


def _both(first: BatchFacts, second: BatchFacts) -> BatchFacts:
    """Return the facts of two halves of one batch."""
    labelled = [one.learned for one in (first, second) if one.learned is not None]
    return BatchFacts(
        sequences=first.sequences + second.sequences,
        tokens=first.tokens + second.tokens,
        learned=sum(labelled) if labelled else None,
        highest=max(first.highest, second.highest),
        rows=first.rows,
        ends=first.ends + second.ends,
        learned_ends=first.learned_ends + second.learned_ends,
        learned_padding=first.learned_padding + second.learned_padding,
    )


@contextmanager
def _random_state_kept() -> Iterator[None]:
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
