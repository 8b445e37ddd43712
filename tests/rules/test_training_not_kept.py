from __future__ import annotations

from script_cases import LOADED, findings

CODE = "KB581"
RUN = """\
from transformers import Trainer, TrainingArguments
trainer = Trainer(model=model, args=TrainingArguments("o", save_strategy="no"), train_dataset=dataset)
{}trainer.train()
"""
LOST = 'save_strategy="no" writes no checkpoint, and nothing uses or saves the model after the training: it is lost'


def test_a_run_that_stores_nothing_is_a_warning():
    assert findings(CODE, LOADED + RUN.format("")) == [("warning", "trainer.train()", LOST)]
    assert findings(CODE, LOADED + RUN.format("") + "trainer.save_model('a')\n") == []
