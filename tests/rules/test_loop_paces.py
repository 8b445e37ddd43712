"""KB566, KB660 and KB717: what a loop does in each round, and what it does in some; with real runs."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accumulating_loops import ACCELERATED, HAND, IMPORTS, SCHEDULE, START, WITH
from script_cases import findings

CODES = ("KB566", "KB588", "KB589", "KB660", "KB717")
SCALED = HAND.replace("for epoch", "scaler = torch.amp.GradScaler('cuda')\nfor epoch", 1)
SCALED = SCALED.replace("loss.backward()", "scaler.scale(loss).backward()").replace(
    "optimizer.step()", "scaler.step(optimizer)"
)
SCALED = SCALED.replace("            torch.nn", "            scaler.unscale_(optimizer)\n            torch.nn")
SCALED = SCALED.replace("step(optimizer)\n", "step(optimizer)\n            scaler.update()\n")
MOVED = "            scheduler.step()\n"
FAULTS = {
    "told nothing": (ACCELERATED.replace("gradient_accumulation_steps=8, ", ""), [("KB566", "warning")]),
    "told nothing, and an option means to": (
        ACCELERATED.replace("gradient_accumulation_steps=8, ", "").replace("epochs, accumulation = 2, 8\n", "epochs = 2\n")
        + "parser.add_argument('--accumulate', type=int, default=4)\n",
        [("KB566", "warning")],
    ),
    "optimizer not prepared": (
        START + SCHEDULE.replace(" // accumulation", "") + WITH.format(prepare="model, loader = acc.prepare(model, loader)\n"),
        [("KB566", "warning")],
    ),
    "cleared before the pass": (
        ACCELERATED.replace("            optimizer.zero_grad()\n", "").replace(
            "            loss = model", "            optimizer.zero_grad()\n            loss = model"
        ),
        [("KB566", "warning")],
    ),
    "cleared in each round": (
        HAND.replace("            optimizer.zero_grad()\n", "").replace(
            "        loss.backward()", "        optimizer.zero_grad()\n        loss.backward()"
        ),
        [("KB566", "warning")],
    ),
    "scaler never updated": (SCALED.replace("            scaler.update()\n", ""), [("KB660", "error")]),
    "unscaled in each round": (
        SCALED.replace("            scaler.unscale_(optimizer)\n", "").replace(
            "        if (step", "        scaler.unscale_(optimizer)\n        if (step"
        ),
        [("KB660", "error")],
    ),
    "stepped past a scaler": (
        SCALED.replace("            scaler.unscale_(optimizer)\n", "")
        .replace("            scaler.update()\n", "")
        .replace("scaler.step(optimizer)", "optimizer.step()"),
        [("KB660", "warning")],
    ),
    "stepped past the scaler of an Accelerator": (
        START + "acc = Accelerator(mixed_precision='fp16')\nmodel, loader = acc.prepare(model, loader)\nfor batch in loader:\n"
        "    acc.backward(model(**batch).loss)\n    optimizer.step()\n    optimizer.zero_grad()\n",
        [("KB660", "warning")],
    ),
    "clipped to zero": (HAND.replace("parameters(), 1.0", "parameters(), max_norm=0.0"), [("KB717", "error")]),
}


def found(text):
    return [(code, severity) for code in CODES for severity, *_ in findings(code, text, imports=IMPORTS)]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_loop_at_another_pace(fault):
    text, expected = fault

    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        ACCELERATED,
        HAND,
        SCALED,
        ACCELERATED.replace("gradient_accumulation_steps=8, ", "").replace("epochs, accumulation = 2, 8\n", "epochs = 2\n"),
        ACCELERATED.replace("gradient_accumulation_steps=8, ", "")
        + "acc.gradient_accumulation_steps = accumulation  # set behind the construction\n",
        ACCELERATED.replace(
            "            optimizer.step()", "            loss = loss.item() / accumulation\n            optimizer.step()"
        ),
        ACCELERATED.replace("batch).loss", "batch).loss / 3"),
        HAND.replace(MOVED, "").replace("epochs * len(loader) // accumulation", "epochs") + "    scheduler.step()\n",
        HAND.replace(MOVED, "")
        .replace(" // accumulation", "")
        .replace("        if (step", "        scheduler.step()\n        if (step"),
        SCALED.replace("GradScaler('cuda')", "GradScaler('cuda', enabled=False)").replace("            scaler.update()\n", ""),
        HAND.replace(
            "        loss.backward()", "        if step % 8 == 0:\n            optimizer.zero_grad()\n        loss.backward()"
        ),
    ],
)
def test_look_alikes(text):
    assert found(text) == []


def test_a_real_accelerator_counts_to_one_divides_and_clears():
    told = Accelerator(gradient_accumulation_steps=4, cpu=True)
    weight = torch.nn.Parameter(torch.zeros(1))
    bare = torch.optim.SGD([weight], lr=1.0)
    prepared = told.prepare(torch.optim.SGD([weight], lr=1.0))
    for _ in range(4):
        with told.accumulate(torch.nn.Linear(1, 1)):
            prepared.zero_grad()
            told.backward(weight.sum() / 4)  # divided twice, and cleared in the round of the step
            prepared.step()
    cleared, plain = weight.item(), Accelerator(cpu=True)
    with plain.accumulate(torch.nn.Linear(1, 1)):
        bare.zero_grad()
        plain.backward(weight.sum())
        bare.step()

    assert (cleared, weight.item()) == (pytest.approx(-1 / 16), pytest.approx(-1 / 16 - 1))


def test_a_real_scaler_refuses_a_second_step_and_a_second_unscale():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="unscale_"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)

    with pytest.raises(RuntimeError, match=r"step\(\) has already been called"):
        scaler.step(optimizer)
