from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

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


RESUMED = "{}(model=model, args=TrainingArguments(output_dir={}), train_dataset=data).train(resume_from_checkpoint=True)\n"
OWN = "class Own(Trainer):\n    def compute_loss(self, model, inputs):\n        return model(**inputs).loss\n\n\n"
STAMP = "stamp = datetime.now().strftime('{}')\nfolder = root / f'run-{{stamp}}'\n"


@pytest.mark.parametrize(
    ("before", "trainer", "folder", "count"),
    [
        (STAMP.format("%Y%m%d-%H%M%S"), "Trainer", "str(folder)", 1),
        ("", "Trainer", "f'run-{uuid.uuid4()}'", 1),
        (OWN, "Own", "f'run-{uuid.uuid4()}'", 1),
        (OWN.replace("compute_loss", "train"), "Own", "f'run-{uuid.uuid4()}'", 0),
        (STAMP.format("%Y%m%d"), "Trainer", "str(folder)", 0),
        ("", "Trainer", "'run'", 0),
    ],
)
def test_a_run_that_resumes_from_a_folder_of_its_own_start(before, trainer, folder, count):
    body = LOADED + PREPARED + ADAPTED + before + RESUMED.format(trainer, folder)

    assert [severity for severity, *_ in findings(CODE, body)] == ["error"] * count
    assert findings(CODE, body.replace("=True", "=last")) == []
