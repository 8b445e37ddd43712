"""Rule KB905: sequence-beyond-positions."""

from __future__ import annotations

import dataclasses

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.rehearsal import BatchFacts, RehearsalFacts
from kbitlint.registry import find
from kbitlint.result import Skip
from kbitlint.violation import Location, Surface

BATCH = BatchFacts("train.py", 20, (2, 64), 31999, 32000, 64, 40, genuine=True)


def outcome(*batches):
    facts = RehearsalFacts("train.py", len(batches), batches=batches)
    return run([find("KB905")], {Surface.REHEARSAL: facts}, TrainingContext())


def test_a_batch_that_fits_is_not_reported():
    assert (outcome(BATCH).violations, outcome(BATCH).skips) == ((), ())
    assert outcome(dataclasses.replace(BATCH, positions=None, shape=(2, 9000))).violations == ()


def test_a_batch_that_does_not_fit_is_reported_at_its_training():
    (violation,) = outcome(BATCH, dataclasses.replace(BATCH, shape=(2, 65))).violations

    assert violation.message == "the first batch has 65 tokens a sequence, and the model 64 positions"
    assert violation.at == Location(file="train.py", line=20)
    assert violation.evidence == {"shape": [2, 65], "positions": 64}


def test_a_batch_of_stand_ins_is_no_proof():
    made_up = dataclasses.replace(dataclasses.replace(BATCH, shape=(2, 65)), genuine=False)

    assert outcome(made_up).violations == ()
    assert outcome(made_up).skips == (
        Skip("KB905", Surface.REHEARSAL, "the first batch is too long, but its data or tokenizer were stood in for"),
    )
