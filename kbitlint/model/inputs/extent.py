"""How large a batch is measured: its inputs are real tensors, so that they must fit the memory of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kbitlint.errors import KbitlintError
from kbitlint.model.batch import training_batch
from kbitlint.model.inputs.positions import length_for
from kbitlint.model.inputs.structure import described
from kbitlint.model.inputs.supplied import extent_of_own

if TYPE_CHECKING:
    from torch import nn

#: Bytes of inputs that are built at most. The largest card trains on far less.
MOST_BYTES = 2 * 2**30
_MOST = 2**20


def shape_for(model: nn.Module, batch: int | None, seq_len: int | None) -> tuple[int, int]:
    """Return the sequences of a batch, 1 if they are open, and the tokens of each as ``length_for``; or those of the own batch.

    Raises:
        KbitlintError: As for ``length_for``; or the inputs are larger than those that are built.
    """
    own = extent_of_own(described(model))
    if own is not None:
        return own
    length = length_for(model, seq_len)
    most = most_sequences(model, length) if batch is not None and batch > 1 else 1
    if batch is not None and batch > most:
        raise KbitlintError(f"--batch {batch}: no more than {most} sequences of {length} tokens are measured")
    return batch or 1, length


def most_sequences(model: nn.Module, seq_len: int) -> int:
    """Return the sequences of the largest batch whose inputs are built, by the inputs of one."""
    try:
        made = training_batch(model, "cpu", 1, seq_len)
    except Exception:  # noqa: BLE001  # a batch that cannot be built is what the step itself tells
        return _MOST
    return min(max(1, MOST_BYTES // max(_bytes(made), 1)), _MOST)


def _bytes(value: object) -> int:
    """Return the bytes of all tensors of a batch."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0
