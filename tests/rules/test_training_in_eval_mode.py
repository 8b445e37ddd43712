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


BATCHES = LOOP.replace("    model.train()\n", "").replace("for epoch in range(3)", "while step < 100")
EPOCHS = BATCHES.replace("        if step % 100 == 0:\n            evaluate", "    evaluate")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(EVALUATE + MADE + BATCHES, id="while-loop"),
        pytest.param("@torch.no_grad()\n" + EVALUATE + MADE + LOOP, id="without-gradients"),
        pytest.param(EVALUATE + MADE + LOOP.replace("model(**batch).loss", "loss_of(model, batch)"), id="loss-of-a-function"),
        pytest.param(EVALUATE + MADE.replace(PREPARED, "") + EPOCHS, id="end-of-epoch-without-checkpointing"),
        pytest.param(
            EVALUATE + MADE + LOOP.replace("            eval", "            for held in sets:\n                eval"), id="sets"
        ),
    ],
)
def test_further_loops_that_go_on(text):
    assert said("KB594", text) == [("warning", "evaluate(model, held)")]


def test_a_round_that_starts_asleep_is_reported_once():
    text = EVALUATE + MADE + "model.train()\n" + EPOCHS.replace("while step < 100", "for epoch in range(3)")

    assert said("KB403", text) == [("warning", "net.eval()")]
    assert said("KB594", text) == []


@pytest.mark.parametrize(
    "text",
    [
        EVALUATE + MADE.replace(PREPARED, "") + EPOCHS.replace("while step < 100", "for epoch in range(1)"),
        EVALUATE + "def wake(net):\n    net.train()\n" + MADE + LOOP.replace("held)", "held)\n            wake(model)"),
        EVALUATE + MADE + LOOP.replace("held)", "held)\n            return"),
        EVALUATE + MADE + LOOP.replace("held)", "held)\n            model.train()"),
        EVALUATE.replace("        return", "        net.train()\n        return") + MADE + LOOP,
        EVALUATE + MADE + LOOP.replace("        if step % 100 == 0:\n            evaluate", "    if True:\n        evaluate"),
        EVALUATE + MADE + LOOP.replace("held)", "held)\n            break"),
        EVALUATE + MADE + LOOP.replace("evaluate(model", "evaluate(teacher"),
    ],
)
def test_loops_that_wake_the_model(text):
    assert said("KB594", text) == []
