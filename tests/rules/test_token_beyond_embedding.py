"""Rule KB903: token-beyond-embedding."""

from __future__ import annotations

import dataclasses

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.rehearsal import BatchFacts, RehearsalFacts
from kbitlint.registry import find
from kbitlint.violation import Location, Surface

BATCH = BatchFacts("train.py", 20, (2, 64), 31999, 32000, None, 40, genuine=True)


def outcome(*batches):
    facts = RehearsalFacts("train.py", len(batches), batches=batches)
    return run([find("KB903")], {Surface.REHEARSAL: facts}, TrainingContext())


def test_a_batch_that_fits_is_not_reported():
    assert (outcome(BATCH).violations, outcome(BATCH).skips) == ((), ())
    assert outcome(dataclasses.replace(BATCH, largest_id=40000, rows=0)).violations == ()


def test_a_batch_that_does_not_fit_is_reported_at_its_training():
    (violation,) = outcome(BATCH, dataclasses.replace(BATCH, largest_id=32000)).violations

    assert violation.message == "the first batch holds the token id 32000, and the embedding has 32000 rows"
    assert violation.at == Location(file="train.py", line=20)
    assert violation.evidence == {"token": 32000, "rows": 32000, "shape": [2, 64]}
