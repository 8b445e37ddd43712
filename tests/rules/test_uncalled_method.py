from __future__ import annotations

import json

import pytest
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, findings, fixed_text

CODE = "KB587"
MADE = LOADED + PREPARED + ADAPTED
TRAINER = "trainer = Trainer(model=model, args=TrainingArguments('out'), train_dataset=data)\n"


@pytest.mark.parametrize(
    ("body", "severity", "statement"),
    [
        (MADE + TRAINER + "trainer.train\n", "error", "trainer.train"),
        (MADE + LOOP.replace("optimizer.step()", "optimizer.step"), "error", "optimizer.step"),
        (MADE + LOOP.replace("loss.backward()", "loss.backward"), "error", "loss.backward"),
        (
            LOADED + "model.gradient_checkpointing_enable\n" + PREPARED + ADAPTED + LOOP,
            "warning",
            "model.gradient_checkpointing_enable",
        ),
        (MADE + "model.train\n" + LOOP, "warning", "model.train"),
        (MADE + LOOP + "def save(net):\n    net.save_pretrained\nsave(model)\n", "error", "net.save_pretrained"),
    ],
)
def test_a_method_that_is_named_alone(body, severity, statement):
    assert findings(CODE, body) == [(severity, statement, f"{statement} is named and not called, so it does nothing")]


@pytest.mark.parametrize(
    "statement",
    [
        "with open('t.json') as f:\n    rows = json.loads(f.read)\n",
        "f = open('t.json')\nrows = len(f.readlines)\n",
        "text = '1'\nrows = int(text.strip)\n",
    ],
)
def test_a_method_that_is_passed_in_place_of_its_result(statement, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.json").write_text("[1]")
    with pytest.raises(TypeError):
        exec(statement, {"json": json})  # noqa: S102  # what Python does with it
    fixed = fixed_text(CODE, statement + MADE, tmp_path).removesuffix(MADE)
    names = {"json": json}
    exec(fixed, names)  # noqa: S102

    assert names["rows"] in ([1], 1)


@pytest.mark.parametrize(
    "body",
    [
        "with open('t') as f:\n    parts = list(iter(f.read, ''))\n" + MADE,
        "with open('t') as f:\n    rows = json.loads(f.read())\n" + MADE,
        "size = int(limits.read)\nlow = len(limits.read)\n" + MADE,
        MADE + TRAINER + "trainer.train()\n",
        MADE + TRAINER + "run = trainer.train\nrun()\n",
        MADE + TRAINER + "trainer.state\nmodel.config\n" + "splits.train\n",
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body) == []


def test_the_fix_calls_it(tmp_path):
    assert fixed_text(CODE, MADE + TRAINER + "trainer.train\n", tmp_path) == MADE + TRAINER + "trainer.train()\n"
