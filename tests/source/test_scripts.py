"""The labelled scripts: whole training scripts, notebooks and configurations, faulty and clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.truth import scripts as benchmark
from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.fixes.files import mend
from kbitlint.registry import all_rules
from kbitlint.source import documents
from kbitlint.upstream.versions import NEWEST
from kbitlint.upstream.versions import installed as REAL_INSTALLED  # noqa: N812  # before the fixture of all tests replaces it
from kbitlint.violation import Safety

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "tests" / "data" / "scripts").iterdir())


def test_there_are_as_many_as_were_promised():
    assert len(SCRIPTS) >= 60


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_is_flagged_is_what_is_labelled(path):
    labelled, found = benchmark.judged(path)

    assert found == labelled


@pytest.mark.parametrize("wanted", [Safety.SAFE, Safety.UNSAFE])
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_fixed_script_is_clean_of_what_was_fixed_and_stays_as_it_is(path, wanted, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    rules = all_rules()
    read = documents.read(copy, copy.name)
    before = {v.code for v in run(rules, read.facts, TrainingContext())[0].violations} if read else set()
    mended = mend(copy, copy.name, rules, TrainingContext(), wanted)
    if mended is None:
        return
    copy.write_bytes(mended.after.encode())
    read = documents.read(copy, copy.name)
    left = run(rules, read.facts, TrainingContext())[0].violations if read else ()

    assert [v.code for v in left if v.fix is not None and v.fix.safety >= wanted] == []
    assert {v.code for v in left} <= before
    again = mend(copy, copy.name, rules, TrainingContext(), wanted)
    assert again is None or again.after == mended.after


def test_versions_come_from_what_is_installed_here():
    assert set(REAL_INSTALLED()) == set(NEWEST)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_only_an_error_says_that_training_fails(path):
    from kbitlint.violation import Consequence, Severity

    read = documents.parse(path, path.read_bytes(), path.name, NEWEST)
    for violation in run(all_rules(), read.facts, TrainingContext())[0].violations if read else ():
        assert (violation.consequence is Consequence.FAILS) <= (violation.severity is Severity.ERROR), violation
