from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

MADE = LOADED + PREPARED + ADAPTED
EVALUATE = """\
def evaluate(net, loader):
    net.eval()
    with torch.no_grad():
        return sum(net(**batch).loss.item() for batch in loader)
"""
LOOP = """\
optimizer = torch.optim.AdamW(model.parameters())
for epoch in range(3):
    model.train()
    for step, batch in enumerate(loader):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            evaluate(model, held)
"""


def said(code, body):
    return [(severity, line) for severity, line, _ in findings(code, body)]


def test_a_loop_that_goes_on_after_an_evaluation():
    assert said("KB594", EVALUATE + MADE + LOOP) == [("warning", "evaluate(model, held)")]


@pytest.mark.parametrize(
    "text",
    [
        EVALUATE + MADE + LOOP.replace("held)", "held)\n            model.train()"),
        EVALUATE.replace("        return", "        net.train()\n        return") + MADE + LOOP,
        EVALUATE + MADE + LOOP.replace("        if step % 100 == 0:\n            evaluate", "    if True:\n        evaluate"),
        EVALUATE + MADE + LOOP.replace("held)", "held)\n            break"),
        EVALUATE + MADE + LOOP.replace("evaluate(model", "evaluate(teacher"),
    ],
)
def test_loops_that_wake_the_model(text):
    assert said("KB594", text) == []
