from __future__ import annotations

import ast

import pytest

from kbitlint.facts.own_loops import Act, LoopAct, Origin
from kbitlint.source.text.own_loops import own_loops

LOOP = """\
for epoch in range(3):
    for step, batch in enumerate(loader):
        with autocast():
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    print(epoch)
"""


def acts(text):
    return [(loop.line, loop.acts, loop.certain) for loop in own_loops(ast.parse(text))]


def test_the_innermost_loop_holds_the_acts_and_a_scheduler_is_none():
    assert [(loop.line, [(one.act, one.name, one.line) for one in loop.acts]) for loop in own_loops(ast.parse(LOOP))][-1] == (
        2,
        [(Act.BACKWARD, "loss", 5), (Act.STEP, "optimizer", 6), (Act.CLEAR, "optimizer", 8)],
    )


@pytest.mark.parametrize(
    ("value", "origin", "model"),
    [
        ("model(**batch).loss", None, ""),
        ("model(input_ids=x).loss", Origin.WITHOUT_LABELS, "model"),
        ("model(**batch).loss.item()", Origin.NUMBER, ""),
        ("model(**batch).loss.detach()", Origin.DETACHED, ""),
    ],
)
def test_the_origin_of_a_loss(value, origin, model):
    assert acts(f"while True:\n    loss = {value}\n    loss.backward()\n") == [
        (1, (LoopAct(Act.BACKWARD, "loss", 3, origin, model),), True)
    ]


def test_an_act_under_a_condition_makes_the_loop_uncertain():
    ((_, found, certain),) = acts("for b in d:\n    loss.backward()\n    if b:\n        optimizer.step()\n")

    assert ([one.act for one in found], certain) == ([Act.BACKWARD, Act.STEP], False)


def test_a_loop_without_acts_is_none():
    assert acts("for line in file:\n    parser.step()\n") == []
