"""The figures of rehearsed public scripts: what is counted as reached, as true and as false."""

from __future__ import annotations

import json

from benchmarks.truth.public_rehearsals import lines_of, scripts_in, summary

RESULTS = [
    {"name": "a", "repository": "one", "trainings": 2, "raised": [], "seconds": 10.0, "peak_mb": 500, "crashes": []},
    {
        "name": "b",
        "repository": "two",
        "trainings": 0,
        "raised": [["b.py", 1, "TypeError: x"]],
        "seconds": 30.0,
        "peak_mb": 700,
    },
    {
        "name": "c",
        "repository": "two",
        "trainings": 0,
        "raised": [["c.py", 1, "KeyError: y"]],
        "seconds": 20.0,
        "crashes": ["z"],
    },
    {"name": "d", "repository": "three", "refused": "it takes other arguments", "seconds": 1.0},
]
VERDICTS = [{"name": "b", "true": True, "cause": "an argument that was removed"}, {"name": "c", "true": False, "cause": "ours"}]


def test_a_script_that_really_ends_so_is_no_miss_and_an_exception_without_a_verdict_is_wrong():
    found = {goal.what: (goal.value, goal.of) for goal in summary(RESULTS, VERDICTS)}

    assert found == {
        "scripts, or drivers from a README, of as many repositories": (3, None),
        "reached their first training step, of those that do so really": (1 / 3, None),
        "exceptions reported that the script does not have": (1, 2),
        "crashes of rules": (1, None),
        "seconds of a rehearsal, median": (20.0, None),
        "memory of a rehearsal, most": (700, None),
    }


def test_scripts_come_from_a_folder_or_a_list(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "train.py").write_text("")
    (tmp_path / "repo" / "notes.md").write_text("")
    listed = tmp_path / "list.jsonl"
    listed.write_text(json.dumps({"name": "x"}) + "\n\n")

    (one,) = scripts_in(tmp_path)
    assert (one["name"], one["repository"], one["command"]) == ("repo/train.py", "repo", ["train.py"])
    assert scripts_in(listed) == [{"name": "x"}]
    assert lines_of(tmp_path / "missing.jsonl") == []
