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


LIGHTNING = LOADED + (
    "import lightning\nfrom transformers import get_linear_schedule_with_warmup\n"
    "class Tuner(lightning.LightningModule):\n    def configure_optimizers(self):\n"
    "        optimizer = torch.optim.AdamW(self.parameters())\n"
    "        schedule = get_linear_schedule_with_warmup(optimizer, 100, 1000)\n"
    "        return {}\n"
)
PER_EPOCH = "get_linear_schedule_with_warmup counts steps, and Lightning moves the schedule once for each epoch"


@pytest.mark.parametrize(
    "result",
    [
        "{'optimizer': optimizer, 'lr_scheduler': schedule}",
        "{'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule}}",
        "[optimizer], [schedule]",
    ],
)
def test_a_schedule_of_steps_without_an_interval(result):
    assert findings(CODE, LIGHTNING.format(result)) == [("warning", f"return {result}", PER_EPOCH)]


@pytest.mark.parametrize(
    "result",
    [
        "{'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}",
        "{'optimizer': optimizer, 'lr_scheduler': torch.optim.lr_scheduler.StepLR(optimizer, 1)}",
        "optimizer",
        "{'optimizer': optimizer, 'lr_scheduler': make(schedule)}",
    ],
)
def test_schedules_of_lightning_that_move_with_steps(result):
    assert findings(CODE, LIGHTNING.format(result)) == []
    manual = LIGHTNING.replace("    def configure", "    automatic_optimization = False\n    def configure")
    assert findings(CODE, manual.format("[optimizer], [schedule]")) == []
