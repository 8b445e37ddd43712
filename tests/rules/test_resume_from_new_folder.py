from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

MADE = LOADED + PREPARED + ADAPTED


def said(code, body):
    return [(severity, line) for severity, line, _ in findings(code, body)]


RESUMED = "Trainer(model=model, args=TrainingArguments(output_dir={}), train_dataset=data).train(resume_from_checkpoint=True)\n"


@pytest.mark.parametrize(
    ("before", "folder", "count"),
    [
        ("stamp = datetime.now().strftime('%Y%m%d-%H%M%S')\nfolder = root / f'run-{stamp}'\n", "str(folder)", 1),
        ("", "f'run-{uuid.uuid4()}'", 1),
        ("stamp = datetime.now().strftime('%Y%m%d')\n", "f'run-{stamp}'", 0),
        ("", "'run'", 0),
    ],
)
def test_a_training_that_resumes_from_a_folder_of_its_own_start(before, folder, count):
    assert [severity for severity, _ in said("KB593", MADE + before + RESUMED.format(folder))] == ["error"] * count
    assert said("KB593", MADE + before + RESUMED.format(folder).replace("=True", "=last")) == []
