from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

MADE = LOADED + PREPARED + ADAPTED


def said(code, body):
    return [(severity, message) for severity, _, message in findings(code, body)]


KEPT = "trainer = Trainer(model=model, args=TrainingArguments('out', bf16=True), train_dataset=data)\n"


@pytest.mark.parametrize("end", ["trainer.save_model('out')\n", "trainer.model.save_pretrained('out')\n"])
def test_a_trainer_that_saves_and_never_trains(end):
    assert said("KB592", MADE + KEPT + end) == [
        ("error", "trainer never trains, and the new adapters are saved as they were drawn")
    ]


@pytest.mark.parametrize(
    "body",
    [
        MADE + KEPT + "trainer.train()\ntrainer.save_model('out')\n",
        MADE + KEPT + "run(trainer)\ntrainer.save_model('out')\n",
        MADE + KEPT + "trainer.evaluate()\ntrainer.save_model('out')\n",
        MADE + KEPT,
        LOADED + "model = PeftModel.from_pretrained(model, 'a')\n" + KEPT + "trainer.save_model('out')\n",
        MADE + TRAINED + "model.save_pretrained('out')\n",
    ],
)
def test_trainers_that_train_or_save_nothing(body):
    assert said("KB592", body) == []
