from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB718"
START = LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters())\n"
END = "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n"


def loop(body, start=START):
    return start + "for batch in loader:\n" + "".join(f"    {line}\n" for line in body.split("\n")) + END


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("loss = model(**batch).loss.item()", "the loss is a number of Python's, which .item() returns"),
        ("loss = model(**batch).loss.detach()", "the loss is detached from the model"),
        ("with torch.no_grad():\n    loss = model(**batch).loss", "the loss is computed where gradients are off"),
        ("with torch.inference_mode():\n    loss = model(**batch).loss", "the loss is computed where gradients are off"),
        (
            "loss = model(input_ids=ids, attention_mask=mask).loss",
            "the loss is None, because the model is called without labels",
        ),
    ],
)
def test_a_loss_that_has_no_gradient(body, message):
    assert findings(CODE, loop(body)) == [("error", "loss.backward()", message)]


@pytest.mark.parametrize(
    "body",
    [
        "loss = model(**batch).loss",
        "loss = model(input_ids=ids, labels=ids).loss",
        "loss = model(input_ids=ids, **rest).loss",
        "loss = model(ids, mask, ids).loss",
        "loss = compute(input_ids=ids).loss",
        "loss = model(**batch).loss\ntotal = loss.item()",
        "loss = model(**batch).loss\nwith torch.no_grad():\n    norm = measure(model)",
        "old = model(**batch).loss.detach()\nloss = model(**batch).loss - old",
        "with torch.no_grad():\n    target = teacher(**batch).logits\nloss = distil(model(**batch).logits, target)",
        "with torch.enable_grad():\n    loss = model(**batch).loss",
    ],
)
def test_look_alikes(body):
    assert findings(CODE, loop(body)) == []


def test_a_model_of_the_users_own_class_may_compute_a_loss_without_labels():
    assert findings(CODE, loop("loss = model(input_ids=ids).loss", "model = Mine()\n")) == []
