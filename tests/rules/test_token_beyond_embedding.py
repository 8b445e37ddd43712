"""Rule KB903: token-beyond-embedding."""

from __future__ import annotations

import dataclasses

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.rehearsal import BatchFacts, RehearsalFacts
from kbitlint.registry import find
from kbitlint.violation import Location, Surface

BATCH = BatchFacts("train.py", 20, (2, 64), 31999, 32000, None, 40, genuine=True)


def outcome(*batches):
    facts = RehearsalFacts("train.py", len(batches), batches=batches)
    return run([find("KB903")], {Surface.REHEARSAL: facts}, TrainingContext())


def test_a_batch_that_fits_is_not_reported():
    assert (outcome(BATCH).violations, outcome(BATCH).skips) == ((), ())
    assert outcome(dataclasses.replace(BATCH, largest_id=40000, rows=0)).violations == ()


def test_a_batch_that_does_not_fit_is_reported_at_its_training():
    (violation,) = outcome(BATCH, dataclasses.replace(BATCH, largest_id=32000)).violations

    assert violation.message == "the first batch holds the token id 32000, and the embedding has 32000 rows"
    assert violation.at == Location(file="train.py", line=20)
    assert violation.evidence == {"token": 32000, "rows": 32000, "shape": [2, 64]}


CUT = LOADED + "model.resize_token_embeddings(128)\n" + PREPARED + ADAPTED
TOKENS = (
    "tokens = torch.randint(7, 250, (2, 16))\n"
    "batch = {'input_ids': tokens, 'attention_mask': torch.ones_like(tokens), 'labels': tokens.clone()}\n"
)
STEPS = (
    "optimizer = torch.optim.AdamW(model.parameters())\nfor _ in range(2):\n    loss = model(**batch).loss\n"
    "    loss.backward()\n    optimizer.step()\n"
)
DATA = "from datasets import Dataset\ndata = Dataset.from_dict({name: values.tolist() for name, values in batch.items()})\n"


@pytest.mark.parametrize(
    ("start", "data", "largest"),
    [
        (CUT, TOKENS, 188),
        (CUT, TOKENS.replace("250", "100") + "tokens[0, 0] = 500\n", 500),
        (CUT, TOKENS.replace("250", "100") + "tokens[:, 4], tokens[:, 5] = 128, 6\n", 128),
        (CUT, "batch = {'input_ids': torch.tensor([[1, 2, 300]])}\nbatch = {k: v.to('cuda') for k, v in batch.items()}\n", 300),
        (CUT, TOKENS.replace("250", "100"), None),
        (CUT, TOKENS.replace("(2, 16)", "shape"), None),
        (CUT, TOKENS.replace("250", "100") + "tokens[mask] = 500\n", None),
        (CUT, TOKENS.replace("250", "len(tokenizer)"), None),
        (CUT.replace("128", "250, pad_to_multiple_of=64"), TOKENS, None),
        (LOADED + PREPARED + ADAPTED, TOKENS, None),
    ],
)
def test_tokens_that_a_script_makes(start, data, largest):
    rows = f"the data holds token ids up to {largest}, and the embedding has 128 rows"

    assert findings("KB903", start + data + STEPS) == [("error", "loss.backward()", rows)] * (largest is not None)


def test_tokens_of_a_trainers_data():
    found = findings("KB903", CUT + TOKENS + DATA + TRAINED)

    assert found == [("error", TRAINED.strip(), "the data holds token ids up to 188, and the embedding has 128 rows")]
