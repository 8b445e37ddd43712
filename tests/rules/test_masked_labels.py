from __future__ import annotations

import plants
import pytest
import tiny
import torch
import transformers

import kbitlint
from kbitlint.integrations.trainer import KbitlintCallback

CODE = "KB713"


class Rows(torch.utils.data.Dataset):
    """Sequences of tokens; counts how often one is read, and draws a random number for each."""

    def __init__(self, *rows):
        self.rows, self.reads = rows, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.reads += 1
        torch.rand(1)
        return {key: torch.tensor(value) for key, value in self.rows[index].items()}


def row(labels):
    return {"input_ids": [5, 6, 7, 8], "attention_mask": [1, 1, 1, 1], "labels": labels}


def trainer(data, folder, **arguments):
    args = transformers.TrainingArguments(str(folder), use_cpu=True, report_to=[], max_steps=1, save_strategy="no")
    return transformers.Trainer(tiny.with_lora(tiny.load()), args, train_dataset=data, **arguments)


def found(target):
    report = kbitlint.check(target, select=CODE, trace=False)
    assert not report.crashes
    return [(v.at.path, v.severity.value, v.message) for v in report.violations]


MASKED = row([-100] * 4)


def test_labels_that_are_all_masked_are_an_error_and_the_loss_is_nan(tmp_path):
    made = trainer(Rows(*[MASKED] * 20), tmp_path)

    assert found(made) == [("labels", "error", "all 32 labels of the first 8 sequences are -100")]
    made.train()
    assert made.state.log_history[-1]["train_loss"] != made.state.log_history[-1]["train_loss"] or (
        made.state.log_history[-1]["train_loss"] == 0
    )
    assert all(not p.grad.any() or not p.grad.isfinite().all() for p in made.model.parameters() if p.grad is not None)


def test_one_label_is_enough(tmp_path):
    assert found(trainer(Rows(MASKED, row([-100, -100, -100, 8])), tmp_path)) == []


def test_the_callback_reports_it_before_the_first_step(tmp_path):
    callback = KbitlintCallback(fail_on="never", select=CODE)
    trainer(Rows(MASKED), tmp_path, callbacks=[callback]).train()

    assert [v.code for v in callback.report.violations] == [CODE]


def test_reading_ahead_leaves_the_random_state_and_the_model_alone(tmp_path):
    data = Rows(MASKED, MASKED)
    made = trainer(data, tmp_path)
    before, state = torch.random.get_rng_state(), tiny.state(made.model)
    found(made)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert tiny.state(made.model) == state
    assert data.reads == 2


def test_data_that_cannot_be_read_ahead_is_skipped(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            raise AssertionError("the stream was read")

    class Broken(Rows):
        def __getitem__(self, index):
            raise ValueError("no data")

    for data in (Stream(), Broken(MASKED), Rows()):
        assert found(trainer(data, tmp_path)) == []
    assert found(plants.trainer()) == []


@pytest.mark.parametrize("labels", [None, [1]])
def test_labels_of_another_shape_are_no_labels_of_tokens(tmp_path, labels):
    plain = {key: value for key, value in row(labels).items() if value is not None}

    assert found(trainer(Rows(plain, plain), tmp_path)) == []
