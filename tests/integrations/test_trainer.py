"""The callback in a real Trainer and a real SFTTrainer, on a tiny nf4 model."""

from __future__ import annotations

import json
import logging
from collections import Counter

import pytest
import tiny
import torch
import transformers
import trl_trainers
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import kbitlint
from kbitlint.integrations.trainer import REPORT, KbitlintCallback, NotReadyError, summary
from kbitlint.violation import Severity

ROWS = [{"input_ids": torch.arange(16), "labels": torch.arange(16)} for _ in range(8)]


class Steps(transformers.TrainerCallback):
    """Counts the steps that were begun, and keeps what was logged."""

    def __init__(self):
        self.begun, self.logged = 0, []

    def on_step_begin(self, *_, **__):
        self.begun += 1

    def on_log(self, *_, logs=None, **__):
        self.logged.append(dict(logs))


def trainer_of(model, tmp_path, callback, **options):
    steps = Steps()
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), use_cpu=True, report_to=[], max_steps=2, learning_rate=0.1, disable_tqdm=True
    )
    trainer = transformers.Trainer(model=model, args=args, train_dataset=ROWS, callbacks=[steps, callback], **options)
    return trainer, steps


def good():
    return tiny.with_lora(tiny.prepared())


def adapters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def cut_off():
    """Reentrant layers that no gradient enters: it trains nothing, without an error from torch."""
    model = good()
    tiny.bind_reentrant(model, use_reentrant=True)
    return model


def frozen():
    model = good()
    model.requires_grad_(False)
    return model


def test_a_good_model_trains_and_the_report_is_written(tmp_path):
    model, callback = good(), KbitlintCallback()
    trainer, steps = trainer_of(model, tmp_path, callback)
    before = adapters(model)

    trainer.train()

    assert steps.begun == 2
    assert any(not torch.equal(before[name], value) for name, value in adapters(model).items())
    document = json.loads((tmp_path / "out" / REPORT).read_text())
    assert document["targets"][0]["violations"] == []
    assert {"code": "KB706", "surface": "ranks"} in document["targets"][0]["ran"]


@pytest.mark.parametrize(("plant", "code"), [(cut_off, "KB301"), (frozen, "KB202")])
def test_a_planted_fault_stops_training_before_the_first_step(tmp_path, plant, code):
    model, callback = plant(), KbitlintCallback()
    trainer, steps = trainer_of(model, tmp_path, callback, optimizers=(torch.optim.SGD(model.parameters(), 0.1), None))

    with pytest.raises(NotReadyError, match="training was stopped before its first step"):
        trainer.train()

    assert steps.begun == 0
    assert code in {violation.code for violation in callback.report.violations}
    assert code in {v["code"] for v in json.loads((tmp_path / "out" / REPORT).read_text())["targets"][0]["violations"]}


def test_the_summary_goes_to_trainers_own_loggers(tmp_path):
    trainer, steps = trainer_of(cut_off(), tmp_path, KbitlintCallback())

    with pytest.raises(NotReadyError):
        trainer.train()

    (logged,) = [logs for logs in steps.logged if "kbitlint/error" in logs]
    assert logged["kbitlint/error"] == logged["kbitlint/KB301"] == 2.0
    assert "kbitlint/error" in trainer.state.log_history[0]


def test_report_to_takes_the_place_of_the_loggers(tmp_path):
    told = []
    trainer, steps = trainer_of(good(), tmp_path, KbitlintCallback(report_to=told.append))

    trainer.train()

    assert told == [{"kbitlint/info": 0.0, "kbitlint/warning": 0.0, "kbitlint/error": 0.0, "kbitlint/crashes": 0.0}]
    assert not [logs for logs in steps.logged if "kbitlint/error" in logs]


def test_fix_repairs_the_model_and_it_trains(tmp_path):
    model = cut_off()
    trainer, steps = trainer_of(model, tmp_path, KbitlintCallback(fix=True))
    before = adapters(model)

    trainer.train()

    assert steps.begun == 2
    assert any(not torch.equal(before[name], value) for name, value in adapters(model).items())


@pytest.mark.parametrize(("fail_on", "stops"), [("never", False), ("error", False), ("warning", True), (Severity.INFO, True)])
def test_fail_on_says_what_stops(tmp_path, fail_on, stops, caplog):
    model = good()
    model.get_base_model().model.norm.weight.data = model.get_base_model().model.norm.weight.data.bfloat16()
    trainer, steps = trainer_of(model, tmp_path, KbitlintCallback(fail_on, select="KB101"))

    with caplog.at_level(logging.WARNING, "kbitlint"):
        if stops:
            with pytest.raises(NotReadyError):
                trainer.train()
        else:
            trainer.train()

    assert (steps.begun == 0) is stops
    assert "KB101 low-precision-norm" in caplog.text


def test_an_optimizer_that_does_not_hold_the_adapters_stops_training(tmp_path):
    base = tiny.prepared()
    optimizer = torch.optim.SGD(list(base.parameters()), 0.1)
    callback = KbitlintCallback()
    model = tiny.with_lora(base)
    trainer, steps = trainer_of(model, tmp_path, callback, optimizers=(optimizer, None))

    with pytest.raises(NotReadyError):
        trainer.train()

    assert steps.begun == 0
    found = sorted(v.at.path for v in callback.report.violations if v.code == "KB706")
    assert found == sorted(name.removeprefix("base_model.model.") for name in adapters(model))


def test_without_the_callback_that_optimizer_really_trains_nothing(tmp_path):
    base = tiny.prepared()
    optimizer = torch.optim.SGD(list(base.parameters()), 0.1)
    model = tiny.with_lora(base)
    trainer, steps = trainer_of(model, tmp_path, KbitlintCallback("never"), optimizers=(optimizer, None))
    before = adapters(model)

    trainer.train()

    assert steps.begun == 2
    assert all(torch.equal(before[name], value) for name, value in adapters(model).items())


def test_the_audit_leaves_the_model_as_it_was(tmp_path):
    model = good()
    model.eval()
    trainer, _ = trainer_of(model, tmp_path, KbitlintCallback())
    before = [module.training for module in model.modules()]

    KbitlintCallback().on_train_begin(trainer.args, trainer.state, trainer.control, model=model, optimizer=None)

    assert [module.training for module in model.modules()] == before
    assert trainer.state.log_history[-1]["kbitlint/error"] == 0.0  # a loop of one's own has no loggers


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"fail_on": "errors"}, "fail_on: 'errors' is none of info, warning, error, never; did you mean 'error'?")],
)
def test_wrong_arguments_are_said_when_the_callback_is_made(arguments, problem):
    with pytest.raises(kbitlint.KbitlintError) as raised:
        KbitlintCallback(**arguments)

    assert str(raised.value) == problem


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="unknown argument 'selct'"):
        KbitlintCallback(selct="KB1")


# -------------------------------------------------------------------------------------------------------------- TRL


def sft_trainer(model, tmp_path, callback, **options):
    import datasets

    steps = Steps()
    args = SFTConfig(
        output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, report_to=[], max_steps=2, learning_rate=0.1, max_length=16
    )
    rows = datasets.Dataset.from_list([{"text": " ".join(str(number) for number in range(2, 18))}] * 8)
    made = SFTTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        processing_class=trl_trainers.tokenizer(),
        callbacks=[steps, callback],
        **options,
    )
    return made, steps


LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def test_a_real_sft_trainer_trains_a_good_model(tmp_path):
    callback = KbitlintCallback()
    trainer, steps = sft_trainer(tiny.prepared(), tmp_path, callback, peft_config=LORA)
    before = adapters(trainer.model)

    trainer.train()

    assert steps.begun == 2
    assert not [name for name, value in adapters(trainer.model).items() if torch.equal(before[name], value)]
    # TRL casts the adapters of quantized models to bfloat16, and adds a hook beside that of transformers
    assert Counter(violation.code for violation in callback.report.violations) == {"KB105": len(before), "KB302": 1}
    assert {skip.code for skip in callback.report.skips} == {"KB403", "KB708", "KB711", "KB712"}


def test_a_planted_fault_stops_a_real_sft_trainer_and_the_fixed_one_trains(tmp_path):
    base, callback = tiny.prepared(), KbitlintCallback()
    too_early = torch.optim.SGD(list(base.parameters()), 0.1)  # SFTTrainer attaches the adapters after it was built
    trainer, steps = sft_trainer(base, tmp_path, callback, peft_config=LORA, optimizers=(too_early, None))

    with pytest.raises(NotReadyError):
        trainer.train()

    assert steps.begun == 0
    assert {v.code for v in callback.report.at_least(Severity.ERROR)} == {"KB706"}
    fixed, steps = sft_trainer(trainer.model, tmp_path, KbitlintCallback())
    before = adapters(fixed.model)
    fixed.train()
    assert steps.begun == 2
    assert any(not torch.equal(before[name], value) for name, value in adapters(fixed.model).items())


def test_a_frozen_model_stops_a_real_sft_trainer(tmp_path):
    callback = KbitlintCallback()
    trainer, steps = sft_trainer(tiny.prepared(), tmp_path, callback, peft_config=LORA)
    trainer.model.requires_grad_(False)

    with pytest.raises(NotReadyError):
        trainer.train()

    assert steps.begun == 0
    assert {v.code for v in callback.report.at_least(Severity.ERROR)} == {"KB202"}


def test_the_summary_counts():
    report = kbitlint.check(tiny.load(), trace=False)

    assert summary(report) == {
        "kbitlint/info": 0.0,
        "kbitlint/warning": 13.0,
        "kbitlint/error": 0.0,
        "kbitlint/KB101": 5.0,
        "kbitlint/KB201": 7.0,
        "kbitlint/KB402": 1.0,
        "kbitlint/crashes": 0.0,
    }
