"""The harness for rule packs, and a pack that is installed as people install one."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import script_cases
import tiny

from kbitlint import registry
from kbitlint.rule import Meta
from kbitlint.testing import Case, Script, hold, hold_document
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity

PACK = Path(__file__).parent / "data" / "packs" / "example"
HEAD = {"lm_head.weight"}


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(PACK))
    try:
        yield importlib.import_module("kbitlint_example.trainable_head").TrainableHead
    finally:
        sys.path.remove(str(PACK))


def test_the_page_on_rule_packs_shows_this_pack_and_a_test_that_holds_for_it(example):
    page = (Path(__file__).parents[1] / "docs" / "rule-packs.md").read_text(encoding="utf-8")
    (rule, test, *_), settings = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    names = {}

    exec(test, names)  # noqa: S102  # a page of this repository
    names["test_a_trainable_head_is_flagged"]()

    assert rule == (PACK / "kbitlint_example" / "trainable_head.py").read_text(encoding="utf-8")
    assert settings == [(PACK / "pyproject.toml").read_text(encoding="utf-8")]


def frozen_head():
    model = tiny.load()
    model.lm_head.requires_grad_(False)
    return model


def test_a_rule_that_keeps_the_contract_holds(example):
    hold(example, flagged=[Case(tiny.load, HEAD)], clean=[Case(frozen_head), Case(tiny.prepared)])


@pytest.mark.parametrize(
    ("flagged", "clean", "line"),
    [
        ([Case(tiny.load, {"lm_head"})], [], "load: shows ['lm_head.weight'], not ['lm_head']"),
        ([Case(frozen_head, HEAD)], [], "frozen_head: shows [], not ['lm_head.weight']"),
        ([], [Case(tiny.load)], "load: shows ['lm_head.weight'], not []"),
        ([Case(tiny.load)], [], "load: a flagged case names the paths or lines that it shows"),
        ([], [Case(frozen_head, HEAD)], "frozen_head: a clean case shows nothing"),
    ],
)
def test_a_case_that_shows_something_else_fails_with_its_name(example, flagged, clean, line):
    with pytest.raises(AssertionError) as raised:
        hold(example, flagged=flagged, clean=clean)

    assert str(raised.value).split("\n")[0] == line


RECIPE = script_cases.IMPORTS + script_cases.RECIPE
FP4 = RECIPE.replace('bnb_4bit_quant_type="nf4", ', "")


@pytest.mark.parametrize(
    ("slug", "case", "line"),
    [
        ("fp4-by-default", Script(FP4, {1}), r"train.py: shows lines \[\d+\], not \[1\]"),
        ("fp4-by-default", Script("print(1)\n", {1}), "train.py: nothing in the text concerns k-bit training"),
        ("low-precision-norm", Script(FP4, {1}), r"train.py: shows lines \[\], not \[1\]"),
    ],
)
def test_a_script_that_shows_something_else_fails_with_its_lines(slug, case, line):
    with pytest.raises(AssertionError, match=line):
        hold(type(registry.find(slug)), flagged=[case])


def test_a_rule_on_scripts_holds_with_its_fix():
    faulty = next(number for number, code in enumerate(FP4.split("\n"), 1) if code.startswith("bnb = "))

    hold(type(registry.find("fp4-by-default")), flagged=[Script(FP4, {faulty})], clean=[Script(RECIPE)])


def _changing(model):
    assert model.norms  # facts are frozen; what a rule could change is the live model, through a global
    LIVE[0].lm_head.requires_grad_(False)
    return []


LIVE = []


def _live():
    LIVE[:] = [tiny.load()]
    return LIVE[0]


COUNT = iter(range(1000))


def broken(example, check):
    """The example's rule with another check."""

    def check_model(self, model, context):
        return check(model) or example.check_model(self, model, context)

    return type("Broken", (example,), {"check_model": check_model, "__doc__": example.__doc__})


def _violation(self, message="the head requires grad", fix=None):
    return self.violation(message, Location("lm_head.weight"), fix=fix)


def variant(example, **arguments):
    def check_model(self, model, context):
        if any(parameter.path == "lm_head.weight" for parameter in model.trainable):
            yield _violation(self, **{name: value() if callable(value) else value for name, value in arguments.items()})

    return type("Variant", (example,), {"check_model": check_model, "__doc__": example.__doc__})


def test_a_check_that_changes_the_model_is_caught(example):
    with pytest.raises(AssertionError, match="_live: a check changes nothing"):
        hold(broken(example, _changing), flagged=[Case(_live, HEAD)])


def test_a_check_that_gives_something_else_each_time_is_caught(example):
    rule = variant(example, message=lambda: f"number {next(COUNT)}")

    with pytest.raises(AssertionError, match="load: a check is deterministic"):
        hold(rule, flagged=[Case(tiny.load, HEAD)])


def test_a_check_that_raises_is_caught_with_its_traceback(example):
    with pytest.raises(AssertionError, match=r"raises nothing but Unchecked:\nTraceback(.|\n)*ZeroDivisionError"):
        hold(broken(example, lambda model: 1 // 0), flagged=[Case(tiny.load, HEAD)])


def test_a_message_with_a_full_stop_is_caught(example):
    with pytest.raises(AssertionError, match="a message has no full stop"):
        hold(variant(example, message="It trains."), flagged=[Case(tiny.load, HEAD)])


def test_a_fix_that_removes_nothing_is_caught(example):
    from kbitlint.fixes.model import FixError

    fix = Fix("freeze something else", Safety.SAFE, (Edit("freeze", "model.norm.weight"),))

    with pytest.raises(FixError, match="does not remove its violation"):
        hold(variant(example, fix=fix), flagged=[Case(tiny.load, HEAD)])


def test_a_fix_that_causes_another_violation_is_caught(example):
    edits = (Edit("freeze", "lm_head.weight"), Edit("enable-checkpointing", "", {"use_reentrant": True}))
    fix = Fix("freeze it, and checkpoint reentrantly", Safety.SAFE, edits)

    with pytest.raises(AssertionError, match="load: a fix causes no violation of another rule"):
        hold(variant(example, fix=fix), flagged=[Case(tiny.load, HEAD)])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"meta": Meta("X1", "trainable-head", Severity.INFO, Consequence.HARMLESS, "1")},
            "code 'X1' is capital letters and three digits",
        ),
        ({"meta": Meta("KB991", "Head!", Severity.INFO, Consequence.HARMLESS, "1")}, "slug 'Head!' is words joined by hyphens"),
        ({"__doc__": "No sentence"}, "the first line of the document is a sentence"),
        (
            {"__doc__": "A sentence."},
            "the document has the sections What it does, Why is this bad?, ",
        ),
    ],
)
def test_the_shape_of_a_rule_is_held(example, changes, line):
    rule = type("Shaped", (example,), {"__doc__": example.__doc__, **changes})

    with pytest.raises(AssertionError) as raised:
        hold_document(rule)

    assert str(raised.value).startswith(line)


@pytest.mark.usefixtures("preloaded")
def test_the_pack_is_installed_through_its_entry_point_and_used(tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    source = tmp_path / "source"
    shutil.copytree(PACK, source)
    subprocess.run([*command, "--target", tmp_path / "site", source], check=True, capture_output=True)
    tests = str(Path(__file__).parent / "support")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), tests])}

    def kbitlint(*arguments):
        command = [sys.executable, "-W", "ignore", "-m", "kbitlint", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)

    assert "KB991  trainable-head" in kbitlint("rules").stdout
    assert kbitlint("explain", "trainable-head").stdout.startswith("# trainable-head (KB991)\n")
    checked = kbitlint("check", "plants:unprepared", "--select", "KB991")
    assert (checked.returncode, "KB991 trainable-head" in checked.stdout) == (1, True)
