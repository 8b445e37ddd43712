"""The cores of the benchmarks of the fix, on the smallest models: what they measure and what they say of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from kbitlint.context import TrainingContext

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the benchmarks are of the architectures of transformers 5")


@pytest.fixture(scope="module")
def geometry():
    from benchmarks.cost import preparation

    sizes = preparation.sizes(64, 128, 1, (4, 2), 256, num_local_experts=2, num_experts_per_tok=1)
    return preparation.Geometry("a tiny Mixtral", "Mixtral", sizes)


def test_bytes_of_a_preparation_are_the_same_on_meta_and_for_real(geometry, tmp_path, monkeypatch):
    from benchmarks.cost import preparation

    monkeypatch.setattr(preparation, "STEPS", 1)
    context = TrainingContext(autocast_dtype="float32", batch_size=1, seq_len=32)
    names = [preparation.PEFT, preparation.KBITLINT, preparation.UNSAFE]
    preparation.save(geometry, str(tmp_path), "cpu")
    real = {name: preparation.state_for_real(geometry, str(tmp_path), "cpu", name, context) for name in names}
    meta = {name: preparation.state_on_meta(geometry, name, context) for name in names}

    def counted(states):
        return {name: (state.weights, state.activations, state.saved) for name, state in states.items()}

    assert counted(real) == counted(meta)
    assert real["PEFT"].weights > 1.9 * real["kbitlint"].weights > 3.8 * real["kbitlint, unsafe"].weights
    assert real["PEFT"].activations > 1.25 * real["kbitlint"].activations
    assert all(state.step > 0 and min(state.peak, state.prepared) > state.weights for state in real.values())


def test_a_goal_is_missed_where_a_preparation_costs_more_than_it_may():
    from benchmarks.cost import preparation

    states = {
        "nothing": preparation.State(weights=1000, activations=100, saved=200, step=1.0),
        "PEFT": preparation.State(weights=2000, activations=200, saved=300, step=1.0),
        "kbitlint": preparation.State(weights=1011, activations=100, saved=200, step=1.0),
    }
    seconds = {"PEFT": 2.0, "kbitlint": 3.0, "kbitlint, no trace": 1.0}

    assert [(row.what, row.value, row.met) for row in preparation.goals("here", states, seconds)] == [
        ("here: extra weight bytes / PEFT's", 0.011, False),
        ("here: saved activations / PEFT's", 0.5, True),
        ("here: fix time / PEFT's", 1.5, False),
        ("here: fix time without trace / PEFT's", 0.5, True),
    ]


def test_preparations_are_timed_in_turns_and_the_first_round_does_not_count(geometry, monkeypatch):
    import torch

    from benchmarks.cost import preparation

    called = []
    for name in (preparation.PEFT, preparation.KBITLINT):
        monkeypatch.setitem(preparation.PREPARE, name, lambda model, name=name: called.append((name, model)))
    models = [torch.nn.Identity() for _ in range(6)]
    made = iter(models)

    found = preparation.times(lambda: next(made), ["PEFT", "kbitlint"], 2, "cpu")

    assert called == list(zip(["PEFT", "kbitlint"] * 3, models, strict=True))
    assert set(found) == {"PEFT", "kbitlint"}
    assert preparation.names_for(geometry) == ["nothing", "PEFT", "kbitlint", "kbitlint, no trace", "kbitlint, unsafe"]
    assert preparation.names_for(preparation.LLAMA_8B) == ["nothing", "PEFT", "kbitlint", "kbitlint, no trace"]


def test_a_model_learns_to_count_after_each_preparation(tmp_path):
    from benchmarks.cost import learning

    run = learning.Run("bfloat16", "llama", 0, steps=40)
    learning.learn(run, ["none", "peft", "kbitlint", "kbitlint-unsafe"], tmp_path / "out.jsonl")
    lines = learning.real_steps.results(tmp_path / "out.jsonl")

    assert set(lines) == {(run.task, "llama", name) for name in ("none", "peft", "kbitlint")}
    assert all(line["first"] > 4.1 and line["loss"] < 3.5 for line in lines.values())
    first, *others = (line["loss"] for line in lines.values())
    assert others == pytest.approx([first, first], abs=0.05)


def test_norms_that_square_in_float16_learn_only_where_they_are_prepared(tmp_path):
    from benchmarks.cost import learning

    run = learning.Run("float16", "imagegpt", 0, 1e3, steps=40)
    learning.learn(run, ["none", "kbitlint"], tmp_path / "out.jsonl")
    lines = learning.real_steps.results(tmp_path / "out.jsonl")

    assert lines[run.task, "imagegpt", "none"]["loss"] == pytest.approx(math.log(learning.VOCAB), abs=1e-3)
    assert lines[run.task, "imagegpt", "kbitlint"]["loss"] < 3.8


def test_the_stream_is_made_as_large_as_asked_and_the_function_stays_the_same(tmp_path):
    import torch

    from benchmarks.cost import learning

    tokens, logits = next(learning.batches(0)), []
    for largest in (None, 1e3):
        folder = tmp_path / str(largest)
        cls = learning.made(learning.Run("float16", "gpt_neox", 0, largest), str(folder))
        model = cls.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            logits.append(model(input_ids=tokens).logits)

    assert learning.largest(model, tokens) == pytest.approx(1e3, rel=1e-3)
    assert torch.allclose(*logits, atol=1e-2)


def test_kbitlint_misses_its_goal_where_it_learns_less_than_the_worst_seed_of_peft():
    from benchmarks.cost import learning

    runs = [learning.Run("bfloat16", "llama", seed) for seed in (0, 1)]

    def compared(*losses):
        lines = {
            (run.task, "llama", name): {"loss": loss}
            for name, pair in zip(("none", "peft", "kbitlint"), ((2.0, 2.0), (0.5, 0.7), losses), strict=True)
            for run, loss in zip(runs, pair, strict=True)
        }
        return [(goal.what, goal.met) for _, goals in learning.bfloat16_table(lines, runs) for goal in goals]

    what = "llama: final loss after kbitlint / that of PEFT's worst seed"
    assert compared(0.6, 0.8) == [(what, True)]
    assert compared(0.7, 0.8) == [(what, False)]
    assert compared(0.1, None) == [(what, False)]
    assert [dataclasses.replace(run, seed=0).task for run in runs] == ["bfloat16 as made seed 0"] * 2


def test_a_ratio_is_a_regression_where_it_is_worse_by_more_than_noise():
    from benchmarks import run as benchmarks_run
    from benchmarks.goals import Goal

    known = [Goal("cold / click", 2.0, 5), Goal("jobs", 2.0, 1.5, at_least=True), Goal("noisy", 1.0, 5, noise=0.2)]
    known += [Goal("slow", 1.1, 1), Goal("slower", 1.1, 1)]  # the record misses these two, with a reason
    fine = [
        Goal("cold / click", 2.5, 5),
        Goal("jobs", 1.7, 1.5, at_least=True),
        Goal("noisy", 1.5, 5),
        Goal("seconds", 9, 1, "s"),  # another machine may be slow
        Goal("new", 1, 2),
        Goal("slow", 1.2, 1),
    ]
    worse = [
        Goal("cold / click", 2.7, 5),
        Goal("jobs", 1.4, 1.5, at_least=True),
        Goal("noisy", 1.7, 5),
        Goal("peak", 200, 150, "MB"),
        Goal("slower", 1.5, 1),
    ]

    assert list(benchmarks_run.regressions(fine, known)) == []
    assert [line.partition(":")[0] for line in benchmarks_run.regressions(worse, known)] == [
        "worse than 2 x by more than 30%",
        "missed",
        "worse than 2 x by more than 30%",
        "worse than 1 x by more than 60%",
        "missed",
        "worse than 1.1 x by more than 30%",
    ]


def test_the_page_says_what_is_missed_and_why():
    from benchmarks import run as benchmarks_run
    from benchmarks.goals import Goal

    goals = [Goal("a ratio", 2.104, 1), Goal("a share", 0.9956, 0.995, "%", at_least=True), Goal("faults", 0, 0, "", of=1234)]
    part = {"date": "2026-01-02", "versions": {"torch": "2.13.0"}, "goals": [vars(goal) for goal in goals]}
    reasons = {"a ratio": {"reason": "It is slow.", "profile": "61 % main"}}
    lines = list(benchmarks_run.page({"speed": part}, reasons))

    assert "2 of 3 goals are met." in lines[2]
    table = lines[lines.index("\n`python -m benchmarks.run --only speed`\n") + 1 :]
    assert table == [
        "| | measured | goal | | on |",
        "|---|---:|---:|---|---|",
        "| a ratio | 2.1 x | ≤ 1 x | **missed** | 2026-01-02 |",
        "| a share | 99.56 % | ≥ 99.5 % | met | 2026-01-02 |",
        "| faults | 0 of 1,234 | ≤ 0 | met | 2026-01-02 |",
        "\n## Missed",
        "\n### a ratio: 2.1 x, goal ≤ 1 x",
        "\nIt is slow.",
        "\n```text\n61 % main\n```",
        "\n## Not measured\n",
        *(
            f"- {part.title}: `python -m benchmarks.run --only {name}` needs {part.needs}."
            for name, part in benchmarks_run.PARTS.items()
            if part.needs
        ),
        "\n## Versions\n",
        "- torch 2.13.0",
    ]


def test_sections_of_the_robustness_benchmark_are_recorded_one_by_one(tmp_path, monkeypatch):
    """A section that is measured again takes the place of its own figure only; the others keep theirs with their dates."""
    import json

    from benchmarks import run as benchmarks_run
    from benchmarks.goals import Goal

    earlier = {
        f"robustness-{name}": {"date": "2026-01-02", "versions": {}, "goals": [vars(Goal(name, 0, 0, "", of=of))]}
        for name, of in (("stops", 12), ("exits", 50))
    }
    monkeypatch.setattr(benchmarks_run, "DATA", tmp_path / "data.json")
    benchmarks_run.DATA.write_text(json.dumps(earlier))
    monkeypatch.setattr(benchmarks_run, "run", lambda *_: [Goal("stops", 0, 0, "", of=200)])
    monkeypatch.setattr(benchmarks_run, "date", type("Day", (), {"today": lambda: dt.date(2026, 3, 4)}))

    assert benchmarks_run.measure(["robustness-stops"])
    table = [line for line in benchmarks_run.page(benchmarks_run.load(), {}) if line.startswith("| ")][1:]
    assert table == ["| stops | 0 of 200 | ≤ 0 | met | 2026-03-04 |", "| exits | 0 of 50 | ≤ 0 | met | 2026-01-02 |"]


def test_every_section_of_the_robustness_benchmark_is_a_part():
    """Importing the sections changes sys.path, so a process of its own does."""
    from benchmarks.run import SECTIONS

    code = "from benchmarks.robustness.run import SECTIONS; print(*SECTIONS)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert tuple(done.stdout.split()) == SECTIONS


def test_a_goal_that_is_missed_needs_a_reason_and_one_that_is_met_has_none(tmp_path, monkeypatch):
    import json

    from benchmarks import run as benchmarks_run
    from benchmarks.goals import Goal

    goals = [Goal("slow", 2, 1), Goal("slower", 3, 1), Goal("fine", 1, 1)]
    part = {"date": "2026-01-02", "versions": {}, "goals": [vars(goal) for goal in goals]}
    for name in ("DATA", "PAGE", "MISSED"):
        monkeypatch.setattr(benchmarks_run, name, tmp_path / name)
    benchmarks_run.DATA.write_text(json.dumps({"speed": part}))
    benchmarks_run.MISSED.write_text('["slower"]\nreason = "It is."\n["fine"]\nreason = "It was."\n')

    assert benchmarks_run.write_page() == [
        "missed, and missed.toml gives no reason: slow",
        "missed.toml gives a reason, and it is met: fine",
    ]
    assert "### slow: 2 x, goal ≤ 1 x" in benchmarks_run.PAGE.read_text()


def test_every_folder_of_tests_has_a_promise_and_every_exception_is_a_module():
    from benchmarks import suite

    root = Path(__file__).parents[1]
    modules = {path.relative_to(root).with_suffix("") for path in root.rglob("test_*.py") if "data" not in path.parts}

    assert {module.parent.as_posix() for module in modules} == set(suite.FOLDERS)
    named = [name for files in suite.MODULES.values() for name in files]
    assert set(named) <= {module.as_posix() for module in modules}
    assert [name for name in named if suite.FOLDERS[str(Path(name).parent)] == suite.promise_of(f"tests.{name}")] == []
    assert suite.promise_of("tests.rules.test_made_today") == suite.promise_of("tests.test_rules_meta.TestTheContract")
    assert suite.promise_of("tests.jobs.test_jobs") == "many targets at once"
    assert suite.promise_of("tests.made_today.test_x") == suite.FOLDERS["."]


def test_a_test_that_is_skipped_shows_nothing(tmp_path):
    from benchmarks import suite

    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.jobs.test_jobs" name="a"/>'
        '<testcase classname="tests.jobs.test_jobs" name="b"><skipped/></testcase>'
        '<testcase classname="tests.jobs.test_jobs" name="d"><skipped message="of transformers 4"/></testcase>'
        '<testcase classname="tests.output.test_page_in_browser" name="c"><failure/></testcase></testsuite></testsuites>'
    )
    told = {goal.what: (goal.value, goal.of) for goal in suite.goals(tmp_path / "report.xml")}

    assert told["many targets at once: tests that do not pass"] == (1, 2)
    assert told["the page, in a browser: tests that do not pass"] == (1, 1)
    assert {pair for what, pair in told.items() if "many" not in what and "page" not in what} == {(0, 0)}
