from __future__ import annotations

import pytest
from accumulating_loops import ACCELERATED, HAND, IMPORTS, PREPARE
from script_cases import LOADED, findings

CODE = "KB589"
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
