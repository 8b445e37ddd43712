from __future__ import annotations

import json

import pytest
import resume
import torch
from checkpoint_cases import findings, skipped


def scheduled(folder, step):
    """Replace the step of a schedule."""
    state = torch.load(folder / "scheduler.pt", weights_only=True)
    torch.save(state | {"last_epoch": step, "_step_count": step + 1}, folder / "scheduler.pt")
    return folder


def test_a_folder_of_another_step(tmp_path):
    folder = resume.saved(tmp_path).rename(tmp_path / "checkpoint-500")

    assert findings("KB828", folder) == [
        ("warning", "trainer_state.json", "the folder is called checkpoint-500, and its state is of step 2")
    ]


def test_a_schedule_that_is_further_than_the_run(tmp_path):
    folder = scheduled(resume.saved(tmp_path), 1001)

    assert findings("KB828", folder) == [("warning", "scheduler.pt", "the schedule is at step 1001, and the run at step 2")]
    assert resume.resumed(folder).lr_scheduler.last_epoch == 1003  # the run is at step 4


@pytest.mark.parametrize("step", [0, 1, 2, 4, 16])
def test_skipped_steps_and_those_of_several_processes_are_usual(tmp_path, step):
    assert findings("KB828", scheduled(resume.saved(tmp_path), step)) == []


def test_a_damaged_state_is_of_no_step(tmp_path):
    folder = resume.saved(tmp_path)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": "two"}))

    assert skipped("KB828", folder) == ["no folder with a trainer_state.json that a run resumes from"]
