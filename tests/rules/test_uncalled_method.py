from __future__ import annotations

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
    "body",
    [
        MADE + TRAINER + "trainer.train()\n",
        MADE + TRAINER + "run = trainer.train\nrun()\n",
        MADE + TRAINER + "trainer.state\nmodel.config\n" + "splits.train\n",
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body) == []


def test_the_fix_calls_it(tmp_path):
    assert fixed_text(CODE, MADE + TRAINER + "trainer.train\n", tmp_path) == MADE + TRAINER + "trainer.train()\n"
