from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from peft import AdaLoraConfig, get_peft_model

import kbitlint
from kbitlint.integrations.trainer import KbitlintCallback

CODE = "KB716"
ROW = {"input_ids": [5, 6, 7, 8], "attention_mask": [1] * 4, "labels": [5, 6, 7, 8]}


class Allocate(transformers.TrainerCallback):
    def on_optimizer_step(self, args, state, control, model=None, **_):  # noqa: ARG002  # Trainer passes them
        model.base_model.update_and_allocate(state.global_step)


def trainer(folder, *callbacks, adapters=None):
    config = adapters or AdaLoraConfig(
        init_r=8, target_r=2, total_step=12, tinit=1, tfinal=2, deltaT=1, target_modules=["q_proj"], task_type="CAUSAL_LM"
    )
    args = transformers.TrainingArguments(
        str(folder), use_cpu=True, report_to=[], max_steps=12, save_strategy="no", learning_rate=0.05
    )
    data = [{key: torch.tensor(value) for key, value in ROW.items()}] * 4
    return transformers.Trainer(get_peft_model(tiny.load(), config), args, train_dataset=data, callbacks=list(callbacks))


def found(target):
    report = kbitlint.check(target, select=CODE, trace=False)
    assert not report.crashes
    return [(v.severity.value, v.evidence["adapter"]) for v in report.violations]


def ranks(made):
    """The number of singular values that are not zero, over all layers."""
    return sum(int((p != 0).sum()) for name, p in made.model.named_parameters() if "lora_E" in name)


@pytest.mark.parametrize("allocates", [True, False])
def test_without_a_call_the_ranks_stay_as_they_begin(tmp_path, allocates):
    made = trainer(tmp_path, *([Allocate()] if allocates else []))

    assert found(made) == ([] if allocates else [("warning", "default")])
    made.train()
    assert (ranks(made) < 16) is allocates


def test_the_callback_finds_it_too(tmp_path):
    callback = KbitlintCallback(fail_on="never", select=CODE)
    trainer(tmp_path, callback).train()

    assert [v.code for v in callback.report.violations] == [CODE]


def test_a_trainer_of_ones_own_that_allocates_is_not_flagged(tmp_path):
    class Trainer(transformers.Trainer):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            self.model.base_model.update_and_allocate(self.state.global_step)
            return loss

    made = trainer(tmp_path)
    made.__class__ = Trainer

    assert found(made) == []


def test_lora_has_no_ranks_to_allocate(tmp_path):
    from peft import LoraConfig

    assert found(trainer(tmp_path, adapters=LoraConfig(r=4, target_modules=["q_proj"]))) == []
    assert kbitlint.check(tiny.load(), select=CODE).violations == ()
