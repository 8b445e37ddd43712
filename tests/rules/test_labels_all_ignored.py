"""Rule KB904: labels-all-ignored."""

from __future__ import annotations

import dataclasses

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.rehearsal import BatchFacts, RehearsalFacts
from kbitlint.registry import find
from kbitlint.result import Skip
from kbitlint.violation import Location, Surface

BATCH = BatchFacts("train.py", 20, (2, 64), 31999, 32000, None, 40, genuine=True)


def outcome(*batches):
    facts = RehearsalFacts("train.py", len(batches), batches=batches)
    return run([find("KB904")], {Surface.REHEARSAL: facts}, TrainingContext())


def test_a_batch_that_fits_is_not_reported():
    assert (outcome(BATCH).violations, outcome(BATCH).skips) == ((), ())
    assert outcome(dataclasses.replace(BATCH, labelled=None)).violations == ()


def test_a_batch_that_does_not_fit_is_reported_at_its_training():
    (violation,) = outcome(BATCH, dataclasses.replace(BATCH, labelled=0)).violations

    assert violation.message == "every label of the first batch is -100"
    assert violation.at == Location(file="train.py", line=20)
    assert violation.evidence == {"shape": [2, 64]}


def test_a_batch_of_stand_ins_is_no_proof():
    made_up = dataclasses.replace(dataclasses.replace(BATCH, labelled=0), genuine=False)

    assert outcome(made_up).violations == ()
    assert outcome(made_up).skips == (
        Skip("KB904", Surface.REHEARSAL, "no label of the first batch counts, but its data or tokenizer were stood in for"),
    )


MADE = LOADED + PREPARED + ADAPTED
TOKENS = (
    "tokens = torch.randint(7, 250, (2, 16))\n"
    "batch = {'input_ids': tokens, 'attention_mask': torch.ones_like(tokens), 'labels': tokens.clone()}\n"
)
STEPS = (
    "optimizer = torch.optim.AdamW(model.parameters())\nfor _ in range(2):\n    loss = model(**batch).loss\n"
    "    loss.backward()\n    optimizer.step()\n"
)
DATA = "from datasets import Dataset\ndata = Dataset.from_dict({name: values.tolist() for name, values in batch.items()})\n"
ROWS = "from datasets import Dataset\ndata = Dataset.from_list([{'input_ids': [1, 2, 3], 'labels': [-100] * 3}] * 64)\n"


@pytest.mark.parametrize(
    ("change", "flagged"),
    [
        ("batch['labels'] = torch.full_like(batch['labels'], -100)\n", True),
        ("labels = batch['labels']\nlabels[:] = -100\nbatch = {k: v.to('cuda') for k, v in batch.items()}\n", True),
        ("def hide(b):\n    b['labels'].fill_(-100)\nhide(batch)\n", True),
        ("", False),
        ("batch['labels'][:, :4] = -100\n", False),
        ("batch['labels'][tokens == 0] = -100\n", False),
        ("batch['labels'] = collate(batch['labels'])\n", False),
    ],
)
def test_labels_that_a_script_makes(change, flagged):
    expected = [("error", "loss.backward()", "every label is -100, so that no token counts in the loss")]

    assert findings("KB904", MADE + TOKENS + change + STEPS) == expected * flagged


@pytest.mark.parametrize(
    ("data", "training", "flagged"),
    [
        (TOKENS + "batch['labels'][...] = -100\n" + DATA, TRAINED, True),
        (ROWS, TRAINED.replace("Trainer", "SFTTrainer", 1), True),
        (TOKENS + "batch['labels'][...] = -100\n" + DATA, TRAINED.replace("args=", "data_collator=collator, args="), False),
        (TOKENS + DATA, TRAINED, False),
    ],
)
def test_labels_of_a_trainers_data(data, training, flagged):
    assert [line for _, line, _ in findings("KB904", MADE + data + training)] == [training.strip()] * flagged
