from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, TRAINED, findings, flagged_lines

AUTO = LOADED.replace(", dtype=", ", device_map='auto', dtype=")
ZERO3 = "Trainer(model=model, args=TrainingArguments('out', deepspeed='configs/zero3.json')).train()\n"


FIRST = "args = TrainingArguments('out', deepspeed='configs/zero3.json')\n"
LAST = "Trainer(model=model, args=args).train()\n"


def test_zero3_refuses_a_device_map_where_it_is_switched_on_first():
    assert findings("KB721", FIRST + AUTO + ADAPTED + LAST) == [
        ("error", AUTO.split("\n")[1], "a device_map is passed, and ZeRO-3 places the weights itself")
    ]


def test_arguments_that_come_after_the_load_refuse_nothing():
    assert flagged_lines("KB721", AUTO + ADAPTED + ZERO3) == [("warning", AUTO.split("\n")[1])]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + ADAPTED + ZERO3, id="no map"),
        pytest.param(AUTO + ADAPTED + ZERO3.replace("zero3", "zero2"), id="zero 2"),
        pytest.param(AUTO + ADAPTED + ZERO3.replace("'configs/zero3.json'", "config"), id="unknown stage"),
        pytest.param(AUTO.replace("'auto'", "None") + ADAPTED + ZERO3, id="None"),
        pytest.param(AUTO + ADAPTED + TRAINED, id="no DeepSpeed"),
        pytest.param(ADAPTED + ZERO3, id="unknown model"),
    ],
)
def test_look_alikes(script):
    assert findings("KB721", script) == []
