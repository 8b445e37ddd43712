from __future__ import annotations

import pytest
import torch
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB659"


def loop(*lines):
    start = LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters())\n"
    return start + "for batch in loader:\n    loss = model(**batch).loss\n" + "".join(f"    {line}\n" for line in lines)


BACKWARD, STEP, MOVE, CLEAR = "loss.backward()", "optimizer.step()", "scheduler.step()", "optimizer.zero_grad()"


def test_a_schedule_that_runs_ahead():
    message = "scheduler.step runs before optimizer.step: the first learning rate is skipped"
    assert findings(CODE, loop(BACKWARD, MOVE, STEP, CLEAR)) == [("warning", MOVE, message)]


@pytest.mark.parametrize(
    "lines",
    [
        (BACKWARD, STEP, MOVE, CLEAR),
        (MOVE, BACKWARD, STEP, CLEAR),
        (BACKWARD, "if ready:", f"    {MOVE}", STEP, CLEAR),
        (BACKWARD, "scheduler.step(loss)", STEP, CLEAR),
    ],
)
def test_look_alikes(lines):
    assert findings(CODE, loop(*lines)) == []


def test_torch_warns_of_it():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer)

    with pytest.warns(UserWarning, match="before `optimizer.step"):
        schedule.step()
