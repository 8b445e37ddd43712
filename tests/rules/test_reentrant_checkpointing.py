from __future__ import annotations

import functools

import pytest
import tiny
import torch
from peft import prepare_model_for_kbit_training

import kbitlint
from kbitlint.context import Checkpointing, Strategy, TrainingContext

CODE = "KB401"
UNSET = "use_reentrant is not passed, so torch checkpoints reentrantly"


def found(model, **options):
    return [(v.at.path, v.message) for v in kbitlint.check(model, select=CODE, **options).violations]


def test_pefts_prepare_without_kwargs_means_reentrant():
    model = prepare_model_for_kbit_training(tiny.load())

    assert found(model) == [("model.layers.0", UNSET), ("model.layers.1", UNSET)]


def test_pefts_prepare_with_use_reentrant_false_is_clean():
    model = prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": False})

    assert found(model) == []


def test_an_explicit_request_is_named_as_one():
    model = tiny.load()
    tiny.bind_reentrant(model, use_reentrant=True)

    assert found(model) == [(path, "checkpointing is reentrant") for path in ("model.layers.0", "model.layers.1")]


def test_the_last_call_wins():
    model = prepare_model_for_kbit_training(tiny.load())
    model.gradient_checkpointing_enable({"use_reentrant": False})

    assert found(model) == []


def test_the_fix_keeps_the_bound_function_and_its_options():
    calls = []

    def own_checkpoint(function, *args, use_reentrant, preserve_rng_state):
        calls.append((use_reentrant, preserve_rng_state))
        return function(*args)

    model = tiny.with_lora(tiny.prepared())
    base = model.get_base_model()
    base._set_gradient_checkpointing(True, functools.partial(own_checkpoint, use_reentrant=True, preserve_rng_state=False))
    model.train()

    kbitlint.fix(model, select=CODE)

    assert tiny.step(model).trains
    assert calls == [(False, False), (False, False)]


def test_checkpointing_that_is_off_is_not_reentrant():
    model = tiny.load()
    tiny.bind_reentrant(model)
    model.gradient_checkpointing_disable()

    assert found(model) == []


@pytest.mark.parametrize(("use_reentrant", "message"), [(None, "unset"), (True, "True")])
def test_what_the_training_arguments_ask_for_counts(use_reentrant, message):
    loop = Checkpointing(enabled=True, use_reentrant=use_reentrant)

    report = kbitlint.check(tiny.prepared(), select=CODE, context=TrainingContext(gradient_checkpointing=loop))

    assert [(v.at.path, v.message, v.evidence, v.fix.edits) for v in report.violations] == [
        ("", "the training arguments ask for reentrant checkpointing", {"use_reentrant": message}, ())
    ]


def test_training_arguments_put_right_what_prepare_left():
    loop = Checkpointing(enabled=True, use_reentrant=False)
    model = prepare_model_for_kbit_training(tiny.load())

    assert found(model, context=TrainingContext(gradient_checkpointing=loop)) == []


def test_zero_3_is_skipped():
    report = kbitlint.check(tiny.load(), select=CODE, context=TrainingContext(strategy=Strategy.ZERO3))

    assert [skip.reason for skip in report.skips] == ["ZeRO-3 needs reentrant checkpointing"]


class _OwnCheckpoint(torch.nn.Module):
    gradient_checkpointing = True

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=True)


def test_a_models_own_reentrant_call_is_shown_but_not_edited():
    model = tiny.prepared()
    model.model.extra = _OwnCheckpoint()

    (violation,) = kbitlint.check(model, select=CODE).violations

    assert (violation.at.path, violation.message, violation.fix.safety.value) == (
        "model.extra",
        "checkpointing is reentrant",
        "display",
    )


def own_non_reentrant(function, *args):
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)


def own_reentrant(function, *args):
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=True)


@pytest.mark.parametrize(
    ("function", "messages"),
    [(own_non_reentrant, []), (own_reentrant, ["checkpointing is reentrant"] * 2), (len, [])],
)
def test_a_checkpoint_function_of_ones_own_is_read_and_never_rebound(function, messages):
    model = tiny.with_lora(tiny.prepared())
    model.get_base_model()._set_gradient_checkpointing(True, function)
    model.train()
    report = kbitlint.check(model, select=CODE)

    kbitlint.fix(model, unsafe=True)

    assert [v.message for v in report.violations] == messages
    assert {v.fix.safety.value for v in report.violations} <= {"display"}
    assert all(layer._gradient_checkpointing_func is function for layer in model.get_base_model().model.layers)
    assert function is len or tiny.step(model).trains
