from __future__ import annotations

import pytest
from written import ADAPTED, LOADED, TRAINED, said

AUTO = LOADED.replace(", dtype=", ", device_map='auto', dtype=")
ZERO3 = "Trainer(model=model, args=TrainingArguments('out', deepspeed='configs/zero3.json')).train()\n"


def test_zero3_refuses_a_device_map():
    assert said("KB721", AUTO + ADAPTED + ZERO3) == [
        ("error", AUTO.split("\n")[1], "a device_map is passed, and ZeRO-3 places the weights itself")
    ]


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
    assert said("KB721", script) == []
