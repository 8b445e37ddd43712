from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB589"
IMPORTS = """\
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, get_linear_schedule_with_warmup
"""
START = (
    LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)\nepochs, accumulation = 2, 8\n"
)
SCHEDULE = "scheduler = get_linear_schedule_with_warmup(optimizer, 10, epochs * len(loader) // accumulation)\n"
PREPARE = "model, optimizer, loader, scheduler = acc.prepare(model, optimizer, loader, scheduler)\n"
WITH = """\
acc = Accelerator(gradient_accumulation_steps=8, mixed_precision="bf16")
{prepare}for epoch in range(epochs):
    for batch in loader:
        with acc.accumulate(model):
            loss = model(**batch).loss
            acc.backward(loss)
            acc.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
"""
ACCELERATED = START + SCHEDULE + WITH.format(prepare=PREPARE)
HAND = (
    START
    + SCHEDULE
    + """\
for epoch in range(epochs):
    for step, batch in enumerate(loader):
        loss = model(**batch).loss / accumulation
        loss.backward()
        if (step + 1) % accumulation == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
"""
)
MOVED = "            scheduler.step()\n"
FAULTS = {
    "schedule not prepared": (
        ACCELERATED.replace(PREPARE, "model, optimizer, loader = acc.prepare(model, optimizer, loader)\n"),
        [("KB589", "warning")],
    ),
    "schedule in each round": (
        HAND.replace(MOVED, "").replace("        if (step", "        scheduler.step()\n        if (step"),
        [("KB589", "warning")],
    ),
    "schedule in each epoch": (
        HAND.replace(MOVED, "").replace(" // accumulation", "") + "    scheduler.step()\n",
        [("KB589", "warning")],
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_loop_at_another_pace(fault):
    text, expected = fault

    assert [(CODE, severity) for severity, *_ in findings(CODE, text, imports=IMPORTS)] == expected


@pytest.mark.parametrize(
    "text",
    [
        ACCELERATED,
        HAND,
        HAND.replace(MOVED, "").replace("epochs * len(loader) // accumulation", "epochs") + "    scheduler.step()\n",
    ],
)
def test_look_alikes(text):
    assert findings(CODE, text, imports=IMPORTS) == []
