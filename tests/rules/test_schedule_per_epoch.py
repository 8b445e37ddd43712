from __future__ import annotations

import pytest
from script_cases import LOADED, findings

CODE = "KB735"
MODULE = LOADED + (
    "import lightning\nfrom transformers import get_linear_schedule_with_warmup\n"
    "class Tuner(lightning.LightningModule):\n    def configure_optimizers(self):\n"
    "        optimizer = torch.optim.AdamW(self.parameters())\n"
    "        schedule = get_linear_schedule_with_warmup(optimizer, 100, 1000)\n"
    "        return {}\n"
)
MESSAGE = "get_linear_schedule_with_warmup counts steps, and Lightning moves the schedule once for each epoch"


@pytest.mark.parametrize(
    "result",
    [
        "{'optimizer': optimizer, 'lr_scheduler': schedule}",
        "{'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule}}",
        "[optimizer], [schedule]",
    ],
)
def test_a_schedule_of_steps_without_an_interval(result):
    assert findings(CODE, MODULE.format(result)) == [("warning", f"return {result}", MESSAGE)]


@pytest.mark.parametrize(
    "result",
    [
        "{'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}",
        "{'optimizer': optimizer, 'lr_scheduler': torch.optim.lr_scheduler.StepLR(optimizer, 1)}",
        "optimizer",
        "{'optimizer': optimizer, 'lr_scheduler': make(schedule)}",
    ],
)
def test_look_alikes(result):
    assert findings(CODE, MODULE.format(result)) == []
    manual = MODULE.replace("    def configure", "    automatic_optimization = False\n    def configure")
    assert findings(CODE, manual.format("[optimizer], [schedule]")) == []
