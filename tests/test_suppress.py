"""Patterns with reasons, the baseline, and severities of a project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kbitlint import suppress
from kbitlint.module_paths import matches
from kbitlint.report import Report
from kbitlint.suppress import IgnoreIn, Suppressions
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

CODES = ("KB101", "KB201", "KB404")


def violation(code="KB101", path="model.norm", file="", severity=Severity.WARNING):
    return Violation(code, "slug", severity, Consequence.UNSTABLE, "message", Location(path, file), Surface.MODEL)


def report(*violations, target="train.py:build", ran=CODES):
    return Report(target, violations=violations, ran=tuple((code, Surface.MODEL) for code in ran))


LAYERS = tuple(violation(path=f"model.layers.{number}.norm") for number in range(3))


def places(report):
    return [v.at.path for v in report.violations], [(s.violation.at.path, s.by, s.reason) for s in report.suppressed]


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        ("**", "", True),
        ("**", "a.b", True),
        ("model.norm", "model.norm", True),
        ("model.norm", "model.norm2", False),
        ("model.*", "model.norm", True),
        ("model.*", "model.layers.0", False),
        ("model.layers.*.norm", "model.layers.31.norm", True),
        ("model.**", "model", True),
        ("model.**", "model.layers.0.norm", True),
        ("model.**", "models.layers", False),
        ("**.norm", "norm", True),
        ("**.norm", "model.layers.0.norm", True),
        ("**.norm", "model.layers.0.norm.weight", False),
        ("**.*norm*.**", "model.layers.0.input_layernorm.weight", True),
        ("a.**.z", "a.z", True),
        ("a.**.z", "a.b.c.z", True),
        ("a(.b", "a(.b", True),
    ],
)
def test_globs_of_module_paths(pattern, path, matched):
    assert matches(pattern, path) is matched


def test_a_pattern_sets_apart_what_it_names_and_keeps_it_visible():
    chosen = Suppressions((IgnoreIn("KB1", "measured: it is stable", "model.layers.*.norm"),))

    (done,), unused = suppress.apply([report(violation(), *LAYERS)], chosen)

    assert places(done) == (["model.norm"], [(v.at.path, "ignore-in", "measured: it is stable") for v in LAYERS])
    assert unused == ()


def test_a_pattern_names_files_and_targets_too():
    in_file = violation("KB404", "use_cache", "config.json")
    chosen = Suppressions((IgnoreIn("KB404", "serving", "config.json", "checkpoints/*"),))

    (here, there), _ = suppress.apply([report(in_file, target="checkpoints/base"), report(in_file)], chosen)

    assert (len(here.violations), len(there.violations)) == (0, 1)


@pytest.mark.parametrize(
    ("pattern", "everything", "ran", "unused"),
    [
        (IgnoreIn("KB101", "why", "gone"), True, CODES, True),
        (IgnoreIn("KB101", "why", "gone"), False, CODES, False),
        (IgnoreIn("KB101", "why", "gone"), True, ("KB201",), False),
        (IgnoreIn("KB101", "why", "gone", "train.py:*"), False, CODES, True),
        (IgnoreIn("KB101", "why", "gone", "other.py:*"), True, CODES, False),
        (IgnoreIn("KB101", "why", "model.norm"), True, CODES, False),
    ],
)
def test_a_pattern_is_unused_only_where_it_could_have_matched(pattern, everything, ran, unused):
    _, lines = suppress.apply([report(violation(), ran=ran)], Suppressions((pattern,)), everything=everything)

    assert lines == ((f"{pattern}: suppresses nothing (why)",) if unused else ())


def test_the_most_specific_severity_wins():
    given = (("KB101", Severity.ERROR), ("KB1", Severity.INFO), ("KB404", Severity.INFO))

    (done,), _ = suppress.apply([report(violation(), violation("KB201"), violation("KB404"))], Suppressions(severity=given))

    assert [(v.code, v.severity) for v in done.violations] == [
        ("KB101", Severity.ERROR),
        ("KB201", Severity.WARNING),
        ("KB404", Severity.INFO),
    ]


def baseline(**counts):
    return Suppressions(baseline={"train.py:build": {"KB101": {"model.layers.*.norm": 3, **counts}}})


def test_a_baseline_sets_apart_up_to_its_count():
    (done,), unused = suppress.apply([report(violation(), *LAYERS)], baseline())

    assert places(done) == (["model.norm"], [(v.at.path, "baseline", "in the baseline") for v in LAYERS])
    assert unused == ()


def test_more_than_the_baseline_allows_shows_all_of_them_and_says_why():
    more = violation(path="model.layers.3.norm")

    (done,), unused = suppress.apply([report(*LAYERS, more)], baseline())

    assert (len(done.violations), done.suppressed, unused) == (4, (), ())
    assert done.notes == ("the baseline allows 3 KB101 in train.py:build at model.layers.*.norm, there are 4",)


def test_fewer_than_the_baseline_allows_ask_to_be_pruned():
    (done,), unused = suppress.apply([report(LAYERS[0])], baseline(gone=1))

    assert done.violations == ()
    assert unused == (
        "baseline train.py:build: KB101 at gone: allows 1, there are 0",
        "baseline train.py:build: KB101 at model.layers.*.norm: allows 3, there are 1",
    )


def test_a_rule_that_did_not_run_leaves_its_baseline_alone():
    found = report(ran=("KB201",))
    known = baseline().baseline

    (_,), unused = suppress.apply([found], baseline())

    assert unused == ()
    assert suppress.written(known, [found], Path(), prune=True) == known
    assert suppress.written(known, [found], Path(), prune=False) == known


def test_pruning_lowers_and_never_raises():
    known = {"train.py:build": {"KB101": {"model.layers.*.norm": 5, "gone": 1}}, "other": {"KB101": {"x": 1}}}
    (done,), _ = suppress.apply([report(violation(), *LAYERS)], Suppressions(baseline=known))

    assert suppress.written(known, [done], Path(), prune=True) == {
        "train.py:build": {"KB101": {"model.layers.*.norm": 3}},
        "other": {"KB101": {"x": 1}},
    }


def test_a_baseline_is_written_read_used_and_pruned_by_the_command_line(run, tmp_path):
    file = tmp_path / "known.json"

    assert run("check", "plants:unprepared").exit_code == 1
    written = run("check", "plants:unprepared", "--baseline", file, "--write-baseline")
    again = run("check", "plants:unprepared", "--baseline", file, "--format", "json")

    assert (written.exit_code, written.stderr) == (0, f"kbitlint: written: {file}\n")
    assert json.loads(file.read_text())["files"]["plants:unprepared"]["KB402"] == {"(model)": 1}
    (target,) = json.loads(again.stdout)["targets"]
    assert (again.exit_code, target["violations"], {s["by"] for s in target["suppressed"]}) == (0, [], {"baseline"})

    content = json.loads(file.read_text())
    content["files"]["plants:unprepared"]["KB402"]["gone"] = 2
    file.write_text(json.dumps(content))
    stale = run("check", "plants:unprepared", "--baseline", file)
    pruned = run("check", "plants:unprepared", "--baseline", file, "--prune-baseline")

    line = "kbitlint: baseline plants:unprepared: KB402 at gone: allows 2, there are 0\n"
    line += "kbitlint: `kbitlint check --prune-baseline` takes out what is gone\n"
    assert (stale.exit_code, stale.stderr) == (0, line)
    assert (pruned.exit_code, pruned.stderr) == (0, f"kbitlint: written: {file}\n")
    assert json.loads(file.read_text())["files"]["plants:unprepared"]["KB402"] == {"(model)": 1}


FAULTY = """\
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("base", quantization_config=config)
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
"""


@pytest.mark.parametrize("form", ["script", "notebook"])
def test_a_baseline_holds_from_every_folder_for_every_target_and_when_lines_move(run, tmp_path, monkeypatch, form):
    name = "train.py" if form == "script" else "train.ipynb"
    lines = FAULTY.splitlines(keepends=True)
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    text = FAULTY if form == "script" else json.dumps({**notebook, "cells": [{**cell, "source": lines}]})
    moved = [cell | {"source": ["x = 1\n"]}, cell | {"source": ["# moved\n", "\n", *lines]}]
    after = f"# moved\n\n{FAULTY}" if form == "script" else json.dumps({**notebook, "cells": moved})
    (tmp_path / "pyproject.toml").write_text('[tool.kbitlint]\nbaseline = "known.json"\n')
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / name).write_text(text)

    written = run("check", ".", "--write-baseline")
    here = [run("check", target).exit_code for target in (".", "src", f"src/{name}", tmp_path / "src" / name)]
    monkeypatch.chdir(tmp_path / "src")
    below = [run("check", target).exit_code for target in (".", name, "..")]
    (tmp_path / "src" / name).write_text(after)
    later = run("check", name)
    (tmp_path / "src" / name).write_text(after.replace("model = prepare_model_for_kbit_training(model)", "prepare = 1"))
    fixed, _ = run("check", name), run("check", name, "--prune-baseline")

    assert (written.exit_code, here, below) == (0, [0] * 4, [0] * 3)
    assert (later.exit_code, later.stderr) == (0, "")
    assert f"baseline src/{name}: KB401 at prepare_model_for_kbit_training " in fixed.stderr
    assert "KB401" not in json.loads((tmp_path / "known.json").read_text())["files"].get(f"src/{name}", {})


def test_a_renamed_file_keeps_what_is_accepted(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.kbitlint]\nbaseline = "known.json"\n')
    (tmp_path / "old.py").write_text(FAULTY)
    run("check", "old.py", "--write-baseline")
    before = json.loads((tmp_path / "known.json").read_text())["files"]

    (tmp_path / "old.py").rename(tmp_path / "new.py")
    renamed = run("check", "new.py")
    (tmp_path / "copy.py").write_text(FAULTY)
    copied = run("check", "new.py", "copy.py", "-q")
    pruned = run("check", "new.py", "--prune-baseline")

    assert (renamed.exit_code, renamed.stderr) == (0, "")
    assert (copied.exit_code, copied.stdout.count("KB401"), copied.stdout.partition("\n")[0]) == (0, 1, "copy.py")
    assert (pruned.exit_code, json.loads((tmp_path / "known.json").read_text())["files"]) == (0, {"new.py": before["old.py"]})


def test_the_configuration_suppresses_and_says_what_is_unused(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.kbitlint]\ntargets = ["plants:unprepared"]\nseverity = { KB402 = "info" }\n'
        'ignore-in = [{ rule = "KB101", path = "**", reason = "trained so before" },\n'
        '  { rule = "trainable-base-parameter", reason = "frozen later" },\n'
        '  { rule = "KB404", path = "vision.**", reason = "gone" }]\n'
    )

    result = run("check")

    assert result.exit_code == 0
    assert "suppressed: 12 by ignore-in" in result.stdout
    assert result.stderr == (
        "kbitlint: running plants:unprepared, named by pyproject.toml\n"
        "kbitlint: ignore-in KB404 at vision.**: suppresses nothing (gone)\n"
    )
    shown = run("config").stdout
    assert 'severity = { "KB402" = "info" }' in shown
    assert '{ "rule" = "KB404", "reason" = "gone", "path" = "vision.**" }' in shown


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("severity = 3", 'severity: must be a table: { KB404 = "warning" }'),
        ('severity = { KB404 = "warn" }', "severity.KB404: 'warn' is none of info, warning, error; did you mean 'warning'?"),
        ("ignore-in = 3", 'ignore-in: must be a list of tables: [{ rule = "KB101", path = "vision.**", reason = "..." }]'),
        ('ignore-in = [{ rule = "KB101" }]', "ignore-in[0].reason: is missing: every pattern names a rule and says why"),
        ('ignore-in = [{ reason = "x" }]', "ignore-in[0].rule: is missing: every pattern names a rule and says why"),
        ('ignore-in = [{ rule = "KB101", reason = " " }]', "ignore-in[0].reason: must be a string that says something"),
        ('ignore-in = [{ rul = "KB101" }]', "ignore-in[0].rul: unknown key; did you mean 'rule'?"),
    ],
)
def test_wrong_decisions_name_file_and_key(run, tmp_path, content, problem):
    (tmp_path / "pyproject.toml").write_text(f"[tool.kbitlint]\n{content}\n")

    result = run("check", "plants:clean")

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: {tmp_path}/pyproject.toml: tool.kbitlint.{problem}\n")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "the file is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "version: must be 2; --write-baseline makes the file anew"),
        ('{"version": 1}', "version: must be 2; --write-baseline makes the file anew"),
        ('{"version": 2, "files": []}', "files: must be an object"),
        ('{"version": 2, "files": {"t": 3}}', "files.t: must be an object"),
        ('{"version": 2, "files": {"t": {"KB101": 3}}}', "files.t.KB101: must be an object"),
        ('{"version": 2, "files": {"t": {"KB101": {"a": 0}}}}', "files.t.KB101.a: must be a positive number, not 0"),
        ('{"version": 2, "files": {"t": {"KB101": {"a": true}}}}', "files.t.KB101.a: must be a positive number, not True"),
    ],
)
def test_a_wrong_baseline_names_file_and_key(run, tmp_path, content, problem):
    file = tmp_path / "known.json"
    file.write_text(content)

    result = run("check", "plants:clean", "--baseline", file)

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: --baseline {file}: {problem}\n")


def test_a_baseline_must_be_there_and_be_named(run, tmp_path):
    gone = run("check", "plants:clean", "--baseline", tmp_path / "gone.json")
    unnamed = run("check", "plants:clean", "--write-baseline")

    assert (gone.exit_code, "--write-baseline makes one" in gone.stderr) == (2, True)
    assert (unnamed.exit_code, "need --baseline FILE" in unnamed.stderr) == (2, True)
