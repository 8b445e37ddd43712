"""Rule KB921: collective-mismatch."""

from __future__ import annotations

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.rehearsal import RehearsalFacts, Stall
from kbitlint.registry import find
from kbitlint.violation import Location, Surface


def verdicts(*stalls):
    facts = RehearsalFacts("train.py", 0, stalls=stalls)
    return run([find("KB921")], {Surface.REHEARSAL: facts}, TrainingContext()).violations


def test_each_line_at_which_a_rank_waits_is_reported():
    first, second = verdicts(Stall(0, "train.py", 12, "another rank has ended"), Stall(1, "lab.ipynb", 3, "x", "cell 2"))

    assert first.message == "rank 1 waits here for the other ranks: x"
    assert first.at == Location("cell 2", "lab.ipynb", 3)
    assert second.message == "rank 0 waits here for the other ranks: another rank has ended"
    assert second.at == Location(file="train.py", line=12)
    assert second.evidence == {"rank": 0, "meanwhile": "another rank has ended"}


def test_ranks_that_meet_in_different_collectives_may_not_wait():
    (violation,) = verdicts(Stall(0, "train.py", 7, "rank 0 runs a and rank 1 runs b", waits=False))

    assert violation.message == "the ranks run different collectives here: rank 0 runs a and rank 1 runs b"


def test_ranks_that_wait_for_none_are_not_reported():
    assert verdicts() == ()
