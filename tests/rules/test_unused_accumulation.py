from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB566"
MADE = "accelerator = Accelerator(gradient_accumulation_steps=4)"
BACKWARD, STEP, CLEAR = "accelerator.backward(loss)", "optimizer.step()", "optimizer.zero_grad()"


def loop(*lines, made=MADE):
    start = f"from accelerate import Accelerator\n{made}\n" + LOADED + PREPARED + ADAPTED
    start += "optimizer = torch.optim.AdamW(model.parameters())\nfor batch in loader:\n    loss = model(**batch).loss\n"
    return start + "".join(f"    {line}\n" for line in lines)


def test_a_loop_that_takes_a_step_with_each_batch():
    message = "optimizer.step runs with each batch, without accelerator.accumulate: nothing accumulates, and "
    message += "accelerator.backward divides each loss by "
    assert findings(CODE, loop(BACKWARD, STEP, CLEAR)) == [("warning", MADE, f"{message}4")]
    made = MADE.replace("4", "many")
    assert findings(CODE, loop(BACKWARD, STEP, CLEAR, made=made)) == [("warning", made, f"{message}its number of steps")]


@pytest.mark.parametrize(
    "text",
    [
        loop("with accelerator.accumulate(model):", f"    {BACKWARD}", f"    {STEP}", f"    {CLEAR}"),
        loop(BACKWARD, "if ready:", f"    {STEP}", f"    {CLEAR}"),
        loop("for part in batch:", f"    {BACKWARD}", STEP, CLEAR),
        loop("loss.backward()", STEP, CLEAR),
        loop(BACKWARD, STEP, CLEAR, made="accelerator = Accelerator()"),
        loop(BACKWARD, STEP, CLEAR, made=MADE.replace("4", "1")),
        loop(BACKWARD, STEP, CLEAR, made=MADE + "  # DeepSpeed counts the rounds itself"),
    ],
)
def test_look_alikes(text):
    assert findings(CODE, text) == []


def test_a_real_loop_takes_each_step_with_a_fourth_of_the_gradient():
    accelerator = Accelerator(gradient_accumulation_steps=4, cpu=True)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = accelerator.prepare(torch.optim.SGD([weight], lr=1.0))
    for _ in range(2):
        accelerator.backward(weight.sum())
        optimizer.step()
        optimizer.zero_grad()

    assert weight.item() == pytest.approx(-2 / 4)
