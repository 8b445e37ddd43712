from __future__ import annotations

import pytest
import resume
from checkpoint_cases import adapter, findings, lora, skipped


@pytest.mark.parametrize("lost", ["scheduler.pt", "optimizer.pt"])
def test_one_file_that_is_missing_makes_trainer_ignore_the_other(tmp_path, lost):
    folder = resume.saved(tmp_path)
    (folder / lost).unlink()

    assert findings("KB827", folder) == [
        ("warning", lost, f"a resumed run starts with a new optimizer and schedule: {lost} is missing")
    ]
    assert resume.resumed(folder).lr_scheduler.last_epoch == 2  # of the two further steps, and not 4


def test_a_folder_without_both_was_saved_so(tmp_path):
    folder = resume.saved(tmp_path, only_model=True)

    assert findings("KB827", folder) == [
        (
            "info",
            "optimizer.pt",
            "a resumed run starts with a new optimizer and schedule: optimizer.pt and scheduler.pt are missing",
        )
    ]
    assert resume.resumed(folder).lr_scheduler.last_epoch == 2


def test_without_the_state_a_resumed_run_raises(tmp_path):
    folder = resume.saved(tmp_path)
    (folder / "trainer_state.json").unlink()

    assert findings("KB827", folder) == [
        ("error", "trainer_state.json", "a resumed run raises: trainer_state.json is missing, or has no global_step")
    ]
    with pytest.raises(FileNotFoundError, match="trainer_state"):
        resume.resumed(folder)


def test_a_whole_folder_is_clean_and_goes_on_where_it_was(tmp_path):
    folder = resume.saved(tmp_path)

    assert findings("KB827", folder) == []
    assert resume.resumed(folder).lr_scheduler.last_epoch == 4


@pytest.mark.parametrize("shards", ["optimizer_0", "global_step2"])
def test_shards_of_an_optimizer_count(tmp_path, shards):
    folder = resume.saved(tmp_path)
    (folder / "optimizer.pt").unlink()
    (folder / shards).mkdir()

    assert findings("KB827", folder) == []


def test_a_final_folder_is_none_to_resume_from(tmp_path):
    folder = resume.saved(tmp_path).rename(tmp_path / "final")
    (folder / "optimizer.pt").unlink()

    assert skipped("KB827", folder) == ["no folder that a run resumes from"]
    assert skipped("KB827", adapter(tmp_path / "checkpoint-7", lora("q_proj"))) == ["no folder that a run resumes from"]
