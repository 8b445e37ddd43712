"""What people and programs read: text at 80 and 100 columns, with and without colour, and versioned JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import plants
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import kbitlint
from kbitlint.integrations.ranks import RankAudit, merge_ranks
from kbitlint.memory_result import StateMemory
from kbitlint.module_paths import fold, fold_all
from kbitlint.output import json as json_report
from kbitlint.output import text
from kbitlint.report import Report
from kbitlint.result import Crash, Skip
from kbitlint.sizes import size
from kbitlint.step_plan import StepPlan
from kbitlint.step_report import MemoryReport
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

UNPREPARED = """\
LlamaForCausalLM 106.8K, bitsandbytes nf4 on 14 layers

KB101 low-precision-norm                                                 warning
  norm weights are bfloat16, not float32; the computation is in float32
    model.layers.*.input_layernorm                                             2
    model.layers.*.post_attention_layernorm                                    2
    model.norm                                                                 1
  means: training may become unstable
  fix: keep them in float32, same dtype in and out  [safe, +640 B]

KB201 trainable-base-parameter                                           warning
  base parameter requires grad
    lm_head.weight                                                             1
    model.embed_tokens.weight                                                  1
    model.layers.*.input_layernorm.weight                                      2
    model.layers.*.post_attention_layernorm.weight                             2
    model.norm.weight                                                          1
  means: training changes what it should not
  fix: freeze it  [safe]

KB402 checkpointing-off                                                  warning
  checkpointing is off: every layer keeps its activations
  means: training needs more memory
  fix: enable it without reentry  [safe]

13 warnings; 3 of 3 causes fixable with --fix
N rules ran on model and trace
  skipped 16 rules (KB105 and others): no adapters are attached yet"""


def same_each_time(report):
    """The text without how many rules there are and how long the step took."""
    return re.sub(r"\d+ rules ran", "N rules ran", report)


def test_the_text_at_80_columns():
    assert same_each_time(text.render(kbitlint.check(tiny.load()))) == UNPREPARED


def test_what_only_several_ranks_concern_is_said_where_there_are_some_or_somebody_asks():
    skips = (
        Skip("KB701", Surface.MODEL, "how ranks share it is not known", unstated=True),
        Skip("KB202", Surface.MODEL, "none"),
    )
    report = Report("t", skips=skips, ran=(("KB101", Surface.MODEL),))

    quiet, told = text.render(report).splitlines()[2:], text.render(report, verbose=True).splitlines()[2:]
    assert quiet == ["clean", "1 rule ran on model, no weights read", "  skipped KB202: none"]
    assert told == [*quiet, "  skipped KB701: how ranks share it is not known"]
    assert [skip["code"] for skip in json.loads(json_report.render([report]))["targets"][0]["skips"]] == ["KB701", "KB202"]
    ranked = merge_ranks({rank: RankAudit(report) for rank in (0, 1)}, {}, 2, ())
    assert "  skipped KB701: how ranks share it is not known" in text.render(ranked).splitlines()


def test_an_error_comes_first_and_says_what_it_means():
    model = tiny.with_lora(plants.faulty("missing-input-grad-hook"))

    lines = text.render(kbitlint.check(model)).splitlines()

    assert lines[2:8] == [
        "KB301 missing-input-grad-hook                                              error",
        "  no gradient reaches its adapters: the layer checkpoints reentrantly and",
        "  nothing before it requires grad",
        "    model.layers.*                                                             2",
        "  means: training fails",
        "  fix: checkpoint without reentry  [safe]",
    ]


def test_a_report_prints_as_text():
    assert same_each_time(str(kbitlint.check(tiny.load()))) == UNPREPARED


@pytest.mark.parametrize(
    "change",
    [
        lambda report: dataclasses.replace(report, target="t"),
        copy.deepcopy,
        lambda report: pickle.loads(pickle.dumps(report)),  # noqa: S301  # as --jobs passes reports
    ],
    ids=["replace", "deepcopy", "pickle"],
)
@pytest.mark.parametrize(
    "report",
    [
        Report("t", crashes=(Crash("KB101", Surface.MODEL, "ValueError: planted"),), ran=(("KB102", Surface.MODEL),)),
        MemoryReport("t", "Llama", (1, 16), StepPlan(), None, (StateMemory("as it is", {"norms": 8}, 0, 0, {}),)),
    ],
    ids=["audit", "memory"],
)
def test_a_report_is_data_and_stays_one_that_prints_itself(report, change):
    same = change(report)

    assert (type(same), same, str(same)) == (type(report), report, str(report))
    assert str(report).startswith("t  ") or str(report).startswith("t\n")
    assert not hasattr(same, "__dict__")


def test_results_and_violations_know_no_renderer():
    code = "import sys; import kbitlint.result, kbitlint.rule; print(*(n for n in sys.modules if n.startswith('kbitlint.')))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    words = {"kbitlint.version", "kbitlint.violation", "kbitlint.result", "kbitlint.rule"}
    assert set(loaded.split()) == words | {"kbitlint.lazy_dataclass", "kbitlint.runtime", "kbitlint.runtime.docstrings"}


def test_a_fix_that_breaks_training_is_not_called_clean(run, monkeypatch):
    from kbitlint.result import Probe

    answers = [Probe("cpu", None, 0, 1, failure="planted"), Probe("cpu", 1.0, 1, 1)]
    monkeypatch.setattr("kbitlint.model.probe.probe", lambda model, **_: answers.pop(0))

    result = run("--fix", "plants:unprepared", "--device", "cpu")

    assert result.exit_code == 2
    assert "not ready: the fix breaks training, and nothing was kept" in result.output.splitlines()
    assert "to make it last" not in result.output


def test_a_clean_report():
    assert same_each_time(text.render(kbitlint.check(tiny.prepared()))).splitlines()[2:] == [
        "clean",
        *UNPREPARED.splitlines()[-2:],
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width):
    model = tiny.with_lora(plants.faulty(*plants.TOGETHER["without a hook"]))

    lines = text.render(kbitlint.check(model, plan=True), width=width).splitlines()

    assert max(map(len, lines)) <= width


def test_colour_changes_nothing_but_the_colour():
    import re

    report = kbitlint.check(tiny.load())

    colored = text.render(report, color=True)

    assert colored != text.render(report)
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == text.render(report)


def violation(path, fix=None, **changes):
    values = {
        "code": "KB101",
        "slug": "low-precision-norm",
        "severity": Severity.WARNING,
        "consequence": Consequence.UNSTABLE,
        "message": "norm weights are bfloat16, not float32",
        "at": Location(path),
        "surface": Surface.MODEL,
        "fix": fix,
    }
    return Violation(**{**values, **changes})


def test_names_in_a_model_cannot_steer_the_terminal():
    report = Report("evil\x1b[2J", violations=(violation("model.\x1b[31mnorm\r\n"),), ran=(("KB101", Surface.MODEL),))

    shown = text.render(report)

    assert "\x1b" not in shown
    assert "\r" not in shown
    assert r"model.\x1b[31mnorm\r\n" in shown


def test_many_places_are_cut_with_their_number():
    report = Report(
        "x", violations=tuple(violation(f"part_{chr(97 + n)}.norm") for n in range(20)), ran=(("KB101", Surface.MODEL),)
    )

    assert "    and 8 more places" in text.render(report).splitlines()


def test_files_are_named_with_their_line():
    place = Location("quantization_config", "config.json", 7)

    assert str(place) == "config.json:7 quantization_config"


def test_a_crash_is_shown_and_is_not_clean():
    report = Report("x", crashes=(Crash("KB101", Surface.MODEL, "ValueError: planted"),))

    assert (report.exit_code(), "KB101 crashed on model: ValueError: planted" in text.render(report)) == (2, True)


def test_nothing_checked_is_not_clean():
    assert Report("x").exit_code() == 2
    assert Report("x", skips=(Skip("", Surface.FILES, "no model"),)).exit_code() == 0


def test_unsafe_fixes_that_are_held_back_are_counted():
    model = tiny.with_lora(plants.faulty("float32-compute-dtype"))

    shown = text.render(kbitlint.fix(model))

    assert "14 unsafe fixes held back: --unsafe-fixes applies them" in shown.splitlines()


def test_the_plan_marks_what_is_unsafe():
    model = plants.faulty("float32-compute-dtype", "low-precision-norm")

    lines = text.render(kbitlint.check(model, plan=True)).splitlines()

    start = lines.index("--fix would make 1 edit:")
    assert lines[start + 1] == "  + float32-norm (interface=transparent)"
    assert "--unsafe-fixes would add 14 edits:" in lines
    assert "memory: +128 B" in lines


def test_nothing_to_plan():
    assert "nothing to fix" in text.render(kbitlint.check(tiny.prepared(), plan=True))


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (-2_500_000, "-2.5 MB"), (90_200_000_000, "90.2 GB")]
)
def test_bytes_for_people(count, shown):
    assert size(count) == shown


def test_json_is_versioned_and_holds_all_the_evidence(run):
    document = json.loads(run("check", "plants:faulty_missing_input_grad_hook", "--format", "json").stdout)

    (target,) = document["targets"]
    first = target["violations"][0]
    assert document["version"] == 1
    assert first == {
        "at": {
            "column": None,
            "end_column": None,
            "end_line": None,
            "file": "",
            "line": None,
            "path": "model.layers.0",
        },
        "code": "KB301",
        "consequence": "training runs but these parameters never learn",
        "evidence": {"seen_in_attributes": True, "trainable_inside": 0},
        "fix": {
            "edits": [
                {"adds_bytes": 0, "arguments": {"use_reentrant": False}, "kind": "bind-checkpoint", "path": "model.layers.0"}
            ],
            "safety": "safe",
            "title": "checkpoint without reentry",
        },
        "message": "no gradient reaches adapters attached to it: the layer checkpoints reentrantly and nothing before it "
        "requires grad",
        "severity": "error",
        "slug": "missing-input-grad-hook",
        "surface": "trace",
    }


def test_an_output_file_holds_the_report(run, tmp_path):
    result = run("check", "plants:clean", "--format", "json", "--output-file", tmp_path / "report.json")

    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads((tmp_path / "report.json").read_text())["targets"][0]["target"] == "plants:clean"


def test_exit_zero_hides_violations_but_no_failure(run):
    assert run("check", "plants:unprepared", "--exit-zero").exit_code == 0
    assert run("check", "plants:raises", "--exit-zero").exit_code == 2


def test_assert_ready_raises_with_the_report():
    with pytest.raises(AssertionError) as raised:
        kbitlint.assert_ready(tiny.load(), fail_on="warning")

    assert same_each_time(str(raised.value)) == f"\n{UNPREPARED}"
    kbitlint.assert_ready(tiny.prepared(), fail_on="warning")


def test_a_fix_with_edits_cannot_be_display_only():
    with pytest.raises(ValueError, match="a display fix has no edits"):
        Fix("x", Safety.DISPLAY, (Edit("freeze"),))
    with pytest.raises(ValueError, match="every other fix has some"):
        Fix("x", Safety.SAFE)


def test_severities_are_ordered():
    assert Severity.INFO < Severity.WARNING < Severity.ERROR
    with pytest.raises(TypeError):
        _ = Severity.INFO < Safety.SAFE


paths = st.lists(st.sampled_from(["model", "layers", "0", "1", "31", "h", "norm", "0a"]), min_size=1, max_size=6).map(".".join)


@given(paths)
def test_folding_replaces_exactly_the_numbers(path):
    assert fold(path) == ".".join("*" if part.isdigit() else part for part in path.split("."))


@given(st.lists(paths, unique=True))
def test_folding_loses_no_place(some):
    folded = fold_all(some)

    assert sum(count for _, count in folded) == len(some)
    assert all(count > 1 or place in some for place, count in folded)


def test_the_same_input_gives_the_same_bytes_in_every_process():
    code = (
        "import sys; sys.path.insert(0, 'tests/support'); import kbitlint, plants\n"
        "from kbitlint.output import json\n"
        "print(json.render([kbitlint.check(plants.faulty('low-precision-norm', 'cache-with-checkpointing'))]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("1", "2")
    }

    assert len(outputs) == 1
