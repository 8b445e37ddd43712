"""Batch x length as a map: the bytes on the card of many batches, from four traced steps.

At each moment of a step, a byte belongs to the whole run, to each position of a sequence (tables of positions), to each
token of a batch, or to each pair of tokens of a sequence where scores are stored. Four steps determine the four counts of
each moment. The peak of any batch is the largest of the moments.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.fit_result import Grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kbitlint.fit_result import Setup
    from kbitlint.fixes.meter import Meter

BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
#: the traced steps: (sequences, tokens). They are long enough that no table of a fixed size decides a moment.
_TRACED = ((1, 512), (1, 1024), (2, 512), (2, 1024))


def grid_of(setup: Setup, meter: Meter) -> Grid | None:
    """Return the map of a run with any batch and length; None if its steps have different moments."""
    traced = [(batch, min(tokens, meter.most_tokens)) for batch, tokens in _TRACED]
    lengths = tuple(tokens for tokens in LENGTHS if tokens <= meter.most_tokens)
    if len(set(traced)) < len(_TRACED) or not lengths:
        return None
    steps = [meter.moments(dataclasses.replace(setup, batch=batch, seq_len=tokens)) for batch, tokens in traced]
    names = set(steps[0])
    if any(set(step) != names for step in steps):
        return None
    rows = [tuple(meter.card.on_card(_peak(steps, batch, tokens)) for tokens in lengths) for batch in BATCHES]
    return Grid(BATCHES, lengths, tuple(rows))


def _peak(steps: Sequence[Mapping[str, int]], batch: int, tokens: int) -> int:
    """Return the most bytes of any moment of a batch."""
    short, long = _TRACED[0][1], _TRACED[1][1]
    most = 0.0
    for name in steps[0]:
        one, longer, two, two_longer = (step[name] for step in steps)
        # of one sequence: linear * tokens + square * tokens**2
        sequence, longer_sequence = two - one, two_longer - longer
        square = (longer_sequence / long - sequence / short) / (long - short)
        linear = sequence / short - square * short
        # of no sequence: fixed + position * tokens
        position = ((longer - longer_sequence) - (one - sequence)) / (long - short)
        fixed = one - sequence - position * short
        most = max(most, fixed + position * tokens + batch * (linear * tokens + square * tokens**2))
    return round(most)
