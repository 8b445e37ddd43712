"""Rule KB901: script-raises-before-training."""

from __future__ import annotations

import dataclasses

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.rehearsal import Phase, Raised, RehearsalFacts
from kbitlint.registry import find
from kbitlint.violation import Location, Surface

RAISED = Raised("TypeError", "no such argument", "train.py", 12, "main", "trl.SFTTrainer.__init__", Phase.BEFORE)
FACTS = RehearsalFacts("train.py", 0, RAISED)


def verdicts(facts):
    return run([find("KB901")], {Surface.REHEARSAL: facts}, TrainingContext()).violations


def test_an_exception_is_reported_at_the_line_of_the_user():
    (violation,) = verdicts(FACTS)

    assert violation.message == "the script raises TypeError: no such argument before the first training step"
    assert violation.at == Location(file="train.py", line=12)
    assert violation.evidence == {"raised": "TypeError: no such argument", "in": "main", "by": "trl.SFTTrainer.__init__"}


def test_an_exception_without_a_message_is_its_class():
    (violation,) = verdicts(dataclasses.replace(FACTS, raised=dataclasses.replace(RAISED, message="", line=0)))

    assert violation.message == "the script raises TypeError before the first training step"
    assert violation.at == Location(file="train.py")


def test_no_exception_and_one_of_the_other_phase_are_not_reported():
    other = dataclasses.replace(RAISED, phase=Phase.AFTER)

    assert verdicts(dataclasses.replace(FACTS, raised=None)) == ()
    assert verdicts(dataclasses.replace(FACTS, raised=other)) == ()
