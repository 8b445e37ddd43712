from __future__ import annotations

import pytest
import tiny
import torch
import transformers

import kbitlint

CODE = "KB715"


def trainer(folder, labels, mask=(0, 0, 1, 1)):
    args = transformers.TrainingArguments(str(folder), use_cpu=True, report_to=[], max_steps=1)
    row = {"input_ids": [0, 0, 7, 8], "attention_mask": list(mask), "labels": labels}
    data = [{key: torch.tensor(value) for key, value in row.items()}] * 3
    return transformers.Trainer(tiny.with_lora(tiny.load()), args, train_dataset=data)


def found(target):
    report = kbitlint.check(target, select=CODE, trace=False)
    assert not report.crashes
    return [(v.at.path, v.severity.value, v.message) for v in report.violations]


def test_labels_that_are_a_copy_of_padded_tokens_are_flagged(tmp_path):
    made = trainer(tmp_path, [0, 0, 7, 8])

    assert found(made) == [("labels", "warning", "6 of 12 labels of the first 3 sequences are of padding")]


@pytest.mark.parametrize("labels", [[-100, -100, 7, 8], [-100] * 4])
def test_masked_padding_is_not_flagged(tmp_path, labels):
    assert found(trainer(tmp_path, labels)) == []


def test_a_mask_without_padding_is_not_flagged(tmp_path):
    assert found(trainer(tmp_path, [0, 0, 7, 8], mask=(1, 1, 1, 1))) == []


def test_a_label_without_a_row_is_an_error_and_stops_the_loss(tmp_path):
    made = trainer(tmp_path, [-100, -100, 7, 256])

    report = kbitlint.check(made, select="KB637", trace=False)
    message = "the first batch has a token 256, and the input embedding 256 rows"
    assert [(v.at.path, v.severity.value, v.message) for v in report.violations] == [("input_ids", "error", message)]
    with pytest.raises(IndexError, match="out of bounds"):
        made.train()


def pairs(folder, learned):
    """Return a trainer of pairs of sequences, as CPO and ORPO batch them. The padding is learned, or not."""
    from trl.experimental.utils import DPODataCollatorWithPadding

    half = {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "labels": [-100, 6, 7, 0 if learned else -100]}
    whole = {"input_ids": [5, 8, 9], "attention_mask": [1, 1, 1], "labels": [-100, 8, 9]}
    row = {f"{name}_{key}": value for name, one in (("chosen", half), ("rejected", whole)) for key, value in one.items()}
    row |= {"prompt_input_ids": [5], "prompt_attention_mask": [1]}
    args = transformers.TrainingArguments(str(folder), use_cpu=True, report_to=[], max_steps=1, remove_unused_columns=False)
    model = tiny.with_lora(tiny.load())
    return transformers.Trainer(model, args, train_dataset=[row] * 2, data_collator=DPODataCollatorWithPadding())


@pytest.mark.parametrize("learned", [True, False])
def test_pairs_of_sequences_are_one_batch(tmp_path, learned):
    pytest.importorskip("trl.experimental.utils")
    report = kbitlint.check(pairs(tmp_path, learned), select=CODE, trace=False)

    wanted = ["2 of 10 labels of the first 4 sequences are of padding"] if learned else []
    assert [violation.message for violation in report.violations] == wanted
    assert (report.crashes, report.skips) == ((), ())


def test_batches_without_labels_are_skipped(tmp_path):
    made = trainer(tmp_path, [0, 0, 7, 8])
    made.train_dataset = [{"input_ids": torch.tensor([5, 6, 7])}] * 3

    assert [skip.reason for skip in kbitlint.check(made, select=CODE, trace=False).skips] == [
        "no trainer whose first batch has labels is at hand"
    ]
