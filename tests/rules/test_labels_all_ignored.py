"""Rule KB904: labels-all-ignored."""

from __future__ import annotations

import dataclasses

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.rehearsal import BatchFacts, RehearsalFacts
from kbitlint.registry import find
from kbitlint.result import Skip
from kbitlint.violation import Location, Surface

BATCH = BatchFacts("train.py", 20, (2, 64), 31999, 32000, None, 40, genuine=True)


def outcome(*batches):
    facts = RehearsalFacts("train.py", len(batches), batches=batches)
    return run([find("KB904")], {Surface.REHEARSAL: facts}, TrainingContext())


def test_a_batch_that_fits_is_not_reported():
    assert (outcome(BATCH).violations, outcome(BATCH).skips) == ((), ())
    assert outcome(dataclasses.replace(BATCH, labelled=None)).violations == ()


def test_a_batch_that_does_not_fit_is_reported_at_its_training():
    (violation,) = outcome(BATCH, dataclasses.replace(BATCH, labelled=0)).violations

    assert violation.message == "every label of the first batch is -100"
    assert violation.at == Location(file="train.py", line=20)
    assert violation.evidence == {"shape": [2, 64]}


def test_a_batch_of_stand_ins_is_no_proof():
    made_up = dataclasses.replace(dataclasses.replace(BATCH, labelled=0), genuine=False)

    assert outcome(made_up).violations == ()
    assert outcome(made_up).skips == (
        Skip("KB904", Surface.REHEARSAL, "no label of the first batch counts, but its data or tokenizer were stood in for"),
    )
