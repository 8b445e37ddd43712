from __future__ import annotations

import pytest
import tiny

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB707"
# accelerate's refusal and the steps of a loop of one's own are held against this rule in tests/test_causes_ranks.py


def found(devices, kind="nf4", **context):
    model = tiny.load(kind=kind)
    model.hf_device_map = devices
    report = kbitlint.check(model, select=CODE, context=TrainingContext(**context), trace=False)
    return [(v.at.path, v.severity.value, v.consequence.value, v.evidence) for v in report.violations]


ON_DISK = {"model": "cpu", "lm_head": "disk"}
EVIDENCE = {"devices": ["cpu", "disk"], "offloaded": 0}


def test_trainer_stops_before_the_first_step():
    assert found(ON_DISK, sets_training_mode=True) == [("", "error", "training fails", EVIDENCE)]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_loop_of_ones_own_may_train(kind):
    fragile = "training works here and fails in other set-ups (DDP, hooks missing)"

    assert found(ON_DISK, kind) == [("", "warning", fragile, EVIDENCE)]


@pytest.mark.parametrize(
    ("devices", "kind"), [(ON_DISK, "none"), ({"model": 0, "lm_head": "cpu"}, "nf4"), ({"": "cpu"}, "nf4"), (None, "nf4")]
)
def test_what_accelerate_takes_is_fine(devices, kind):
    assert found(devices, kind, sets_training_mode=True) == []
