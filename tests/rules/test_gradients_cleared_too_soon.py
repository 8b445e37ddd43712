from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

CODE = "KB717"
START = LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters())\n"


def loop(*lines):
    return START + "for batch in loader:\n    loss = model(**batch).loss\n" + "".join(f"    {line}\n" for line in lines)


BACKWARD, STEP, CLEAR = "loss.backward()", "optimizer.step()", "optimizer.zero_grad()"


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ((BACKWARD, CLEAR, STEP), CLEAR, "the gradients are cleared before the optimizer uses them"),
        ((STEP, BACKWARD, CLEAR), CLEAR, "the gradients are cleared before the optimizer uses them"),
        (
            (BACKWARD, "model.zero_grad()", STEP),
            "model.zero_grad()",
            "the gradients are cleared before the optimizer uses them",
        ),
        ((BACKWARD, CLEAR), BACKWARD, "the gradients are cleared, and no optimizer ever takes a step"),
        ((STEP, CLEAR), STEP, "the optimizer takes steps, and no backward pass computes gradients"),
    ],
)
def test_a_loop_that_changes_nothing(lines, line, message):
    assert findings(CODE, loop(*lines)) == [("error", line, message)]


@pytest.mark.parametrize(
    "lines",
    [
        (BACKWARD, STEP, CLEAR),
        (CLEAR, BACKWARD, STEP),
        (BACKWARD, STEP, "scheduler.step()", CLEAR),
        (BACKWARD, "if ready:", f"    {CLEAR}", STEP),
        (BACKWARD, "if ready:", f"    {STEP}", f"    {CLEAR}"),
        (CLEAR, "scaler.scale(loss).backward()", "scaler.step(optimizer)", "scaler.update()"),
        (CLEAR, "engine.backward(loss)", "engine.step()"),
        (CLEAR, "accelerator.backward(loss)", STEP),
        ("with torch.autocast('cuda'):", "    loss = model(**batch).loss", BACKWARD, STEP, CLEAR),
        (STEP, CLEAR, "train_one(model)  # calls backward"),
    ],
)
def test_look_alikes(lines):
    assert findings(CODE, loop(*lines)) == []


def test_a_trainer_has_no_loop_of_the_script():
    assert findings(CODE, LOADED + PREPARED + ADAPTED + TRAINED) == []
