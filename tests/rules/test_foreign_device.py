from __future__ import annotations

from types import SimpleNamespace

import tiny
import torch

import kbitlint
from kbitlint.audit.run import context_of
from kbitlint.context import TrainingContext

CODE = "KB708"
# accelerate's own comparison is held against this rule in tests/causes/test_rank_causes.py


def check(devices, **context):
    model = tiny.load()
    model.hf_device_map = devices
    return kbitlint.check(model, select=CODE, context=TrainingContext(**context), trace=False)


def test_it_says_where_the_model_lies_and_where_the_rank_trains():
    (number,) = check({"": 0}, device="cuda:1").violations
    (name,) = check({"": torch.device("cuda:0")}, device="cuda:1").violations

    assert (number.message, number.evidence) == (
        "the model lies on device 0, and this rank trains on cuda:1",
        {"device_map": "0", "device": "cuda:1"},
    )
    assert name.message == "the model lies on cuda:0, and this rank trains on cuda:1"


def test_several_devices_are_another_rules_matter():
    assert check({"model": 0, "lm_head": 1}, device="cuda:1").violations == ()
    assert check(None, device="cuda:1").violations == ()


def test_a_model_on_the_ranks_own_device_is_not_flagged():
    assert check({"": 1}, device="cuda:1").violations == ()
    assert check({"": 0}, device="cuda").violations == ()


def test_without_a_launcher_the_rule_is_skipped_and_people_are_not_told():
    report = check({"": 0})

    assert [(skip.code, skip.unstated) for skip in report.skips] == [(CODE, True)]


def test_the_launcher_says_which_gpu_is_this_ranks(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert context_of(tiny.load(), TrainingContext()).device == "cuda:1"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert context_of(tiny.load(), TrainingContext()).device is None


def test_training_arguments_say_it_too():
    read = [TrainingContext.from_training_arguments(SimpleNamespace(device=torch.device(name))) for name in ("cuda:1", "cpu")]

    assert [context.device for context in read] == ["cuda:1", None]
