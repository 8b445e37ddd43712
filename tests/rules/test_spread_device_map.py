from __future__ import annotations

import pytest
import tiny

import kbitlint
from kbitlint.context import Strategy, TrainingContext

CODE = "KB702"
# accelerate's own refusal is held against this rule in tests/integrations/test_ranks.py


def found(devices, **context):
    model = tiny.load()
    model.hf_device_map = devices
    report = kbitlint.check(model, select=CODE, context=TrainingContext(**context), trace=False)
    return [(v.at.path, v.severity.value, v.evidence["devices"]) for v in report.violations]


SPREAD = {"model": 0, "lm_head": "cpu"}


@pytest.mark.parametrize("strategy", [Strategy.DDP, Strategy.FSDP1, Strategy.FSDP2, Strategy.ZERO2, Strategy.ZERO3])
def test_a_model_on_two_devices_is_an_error_in_every_distributed_run(strategy):
    assert found(SPREAD, strategy=strategy) == [("", "error", ["0", "cpu"])]


@pytest.mark.parametrize(
    ("devices", "context"),
    [
        (SPREAD, {"strategy": Strategy.SINGLE}),
        (SPREAD, {"strategy": Strategy.DDP, "world_size": 1}),
        ({"": 0}, {"strategy": Strategy.DDP}),
        (None, {"strategy": Strategy.DDP}),
    ],
)
def test_one_process_or_one_device_is_fine(devices, context):
    assert found(devices, **context) == []


def test_without_a_strategy_the_rule_is_skipped():
    report = kbitlint.check(tiny.load(), select=CODE, trace=False)

    assert [skip.code for skip in report.skips] == [CODE]
