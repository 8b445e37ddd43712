"""Tokens that announce an image or a sound: code compares the text with their number, and counts them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.model.inputs.failed_batch import Batch
    from kbitlint.model.inputs.failure import Failure
    from kbitlint.model.inputs.plan import Plan

_TOKENS = re.compile(r"\b(?:tokens?|placeholders?)\b")
_FEATURES = re.compile(r"feature|patch|embed|image|audio")


def announcing(failure: Failure, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """Yield plans whose text announces as many features as the message counts, and plans without what is not announced."""
    if not (_TOKENS.search(failure.message) and _FEATURES.search(failure.message)):
        return
    samples = batch.dimensions.batch
    counts = [number for number in dict.fromkeys(failure.numbers) if number and number % samples == 0]
    for token in sorted(batch.compared, reverse=True):
        yield from (plan.changed(placeholders={token: count // samples}) for count in counts if count != token)
    for name in batch.floats:
        if not batch.arguments[name].required:
            yield plan.changed(without={name})


def with_placeholders(tokens: Tensor, counts: Mapping[int, int]) -> Tensor:
    """Return token ids of shape (batch, sequence) that begin with placeholders.

    Args:
        tokens: The token ids of a text.
        counts: How many of each placeholder one sequence holds. No other token of the text has its number.
    """
    for token, count in counts.items():
        others = torch.where(tokens == token, torch.full_like(tokens, token - 1 if token else 1), tokens)
        tokens = torch.cat([torch.full((len(tokens), count), token, dtype=tokens.dtype), others], dim=1)
    return tokens
