from __future__ import annotations

from script_cases import LOADED, findings

CODE = "KB580"
RUN = """\
from transformers import Trainer, TrainingArguments
trainer = Trainer(model=model, args=TrainingArguments("o"), train_dataset=dataset{})
trainer.train()
print(trainer.evaluate())
"""


def test_an_evaluation_without_data_is_an_error_at_its_call():
    found = findings(CODE, LOADED + RUN.format(""))

    assert found == [
        (
            "error",
            "print(trainer.evaluate())",
            "evaluate is called, and the Trainer has no eval_dataset: it raises a ValueError",
        )
    ]
    assert findings(CODE, LOADED + RUN.format(", eval_dataset=held")) == []
