"""Odd live models end in a report or one plain line; what could not be looked at is named."""

from __future__ import annotations

import pytest
import tiny
import torch

import kbitlint
from benchmarks.robustness import odd_models
from kbitlint.errors import KbitlintError

UNSEEN = {
    "a scripted child": None,
    "a lazy child": "child could not be looked at: its parameters have no shape before the first forward pass",
    "a cycle": "no training step without weights: RecursionError: maximum recursion depth exceeded",
    "a deep child": "the model cannot be copied without its weights: RecursionError: maximum recursion depth exceeded",
    "getattr raises": "the model cannot be copied without its weights: RuntimeError: __deepcopy__",
    "config.use_cache raises": "LlamaConfig.use_cache could not be looked at: OSError: odd",
    "model.is_loaded_in_4bit raises": None,
    "layer.gradient_checkpointing raises": "LlamaDecoderLayer.gradient_checkpointing could not be looked at: ",
    "a scripted model": None,
    "getattr always answers": None,
    "another class": None,
    "no text": None,
}


@pytest.mark.parametrize("name", UNSEEN)
def test_an_odd_model_is_reported_with_what_could_not_be_looked_at(name):
    model = odd_models.ODD[name]()
    found, unseen, problem = odd_models.audited(model, "gradients")

    assert problem is None
    if UNSEEN[name] is not None:
        assert [reason for reason in unseen if reason.startswith(UNSEEN[name])] != []
    errors = [verdict for verdict in found if verdict[1] == "error"]
    assert (errors == []) or odd_models.real(model) is not None


def test_an_ordinary_model_leaves_nothing_unseen():
    found, unseen, problem = odd_models.audited(odd_models.adapted(), "inference_mode")

    assert ({code for code, *_ in found}, unseen, problem) == ({"KB101", "KB402"}, (), None)


@pytest.mark.parametrize("entry", [kbitlint.check, kbitlint.fix, kbitlint.plan, kbitlint.memory])
def test_whatever_a_model_raises_is_one_plain_line(entry):
    class Odd(torch.nn.Module):
        def modules(self):
            raise OSError("first line\nsecond line")

        named_modules = modules

    with pytest.raises(KbitlintError) as odd:
        entry(Odd())
    assert str(odd.value) == ("the Odd: cannot be worked on: OSError: first line, raised in modules of test_odd_models.py")


@pytest.mark.parametrize("entry", [kbitlint.check, kbitlint.fix, kbitlint.plan, kbitlint.memory, kbitlint.undo])
def test_whatever_a_trainer_raises_is_one_plain_line(entry):
    class Trainer:
        args = train = None

        @property
        def model(self):
            raise ZeroDivisionError("no model")

    with pytest.raises(KbitlintError) as odd:
        entry(Trainer())
    assert "ZeroDivisionError: no model, raised in model of test_odd_models.py" in str(odd.value)


@pytest.mark.slow
def test_many_modules_cost_a_step_linear_time():
    seconds = {}
    for count in (1_000, 8_000):
        model = tiny.with_lora(tiny.load())
        tiny.adapters_base(model).many = torch.nn.ModuleList(torch.nn.Identity() for _ in range(count))
        kbitlint.check(model)
        seconds[count] = min(kbitlint.check(model).trace_seconds for _ in range(2))

    assert seconds[8_000] < 12 * seconds[1_000]  # eight times, and what noise adds
