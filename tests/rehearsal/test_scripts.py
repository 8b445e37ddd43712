"""A rehearsal says what a real run does: the same exception at the same line, or the same trained modules.

Each script is run for real on the CPU, on a tiny checkpoint, and rehearsed without its weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rehearsal_scripts as scripts
import rehearsal_truth

import kbitlint
from kbitlint.violation import Consequence, Surface

VARIANTS = {variant.name: variant for variant in (*scripts.CLEAN, *scripts.FAULTS)}


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return scripts.project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def truth(source, tmp_path_factory, request):
    """Return the outcome of the real run of every script that a selected test needs."""
    root = tmp_path_factory.mktemp("real")
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    names = [name for name in VARIANTS if any(call.get("name") == name for call in calls)]
    for name in names:
        variant = VARIANTS[name]
        scripts.place(variant, source, root / name)
        (root / name / "argv.json").write_text(json.dumps(variant.argv))
    support = str(Path(rehearsal_truth.__file__).parent)
    done = subprocess.run(
        [sys.executable, rehearsal_truth.__file__, str(root), *names],
        env={**os.environ, "PYTHONPATH": support, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {(one := json.loads(line))["name"]: one for line in done.stdout.splitlines()}


def rehearsed(folder, argv, monkeypatch):
    monkeypatch.chdir(folder)
    return kbitlint.rehearse("train.py", argv, outline=True, timeout=300)


def raised_in(reports):
    """Return (class of the exception, line) of a rehearsal; (None, None) if the script ended without one."""
    found = [violation for report in reports for violation in report.violations if "raised" in violation.evidence]
    assert len(found) <= 1
    return next(
        ((one.evidence["raised"].partition(":")[0], one.evidence.get("at", one.at.line)) for one in found), (None, None)
    )


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if place % 3 else ()) for place, name in enumerate(VARIANTS)]
)
def test_a_rehearsal_ends_as_the_real_run_does(name, source, truth, tmp_path, monkeypatch):
    variant, real = VARIANTS[name], truth[name]
    script = scripts.place(variant, source, tmp_path / "work")

    reports = rehearsed(script.parent, variant.argv, monkeypatch)

    if real["kind"] is not None and raised_in(reports) == (None, None):  # the step itself raises, which its trace shows
        fails = [one for report in reports for one in report.violations if one.consequence is Consequence.FAILS]
        # its trace, its modules, or its first batch; a cause that the text shows too keeps the line there
        assert {one.surface for one in fails} & {Surface.TRACE, Surface.REHEARSAL, Surface.RANKS, Surface.MODEL}
        assert {one.code for one in fails if one.surface is Surface.RANKS} <= {"KB637"}
        assert fails != []
        assert len({(one.code, one.message, one.at) for one in fails}) == len(fails), "each is shown once"
        assert f"training reached at line {real['line']}" in reports[0].notes
    else:
        assert raised_in(reports) == (real["kind"], real["line"])
    assert [report.crashes for report in reports] == [()] * len(reports)
    of_tokens = [one for report in reports for one in report.violations if one.code in ("KB637", "KB903")]
    assert len(of_tokens) <= 1, "a token without a row is one finding"
    trained = [[one.path for one in report.outline if one.trainable] for report in reports if report.outline]
    if real["trained"]:
        # a script that raises in `train` itself has trained nothing, and its training is not audited
        expected = [sorted(path.removeprefix("base_model.model.") for path in one) for one in real["trained"]]
        assert [sorted(paths) for paths in trained] in (expected, expected[: len(trained)])
    left = {path.name for path in script.parent.iterdir()}
    assert left == {"tiny-llama", "data.jsonl", "helper.py", "config.yaml", "train.py"}, "nothing was written"


def test_a_clean_script_reaches_its_training_and_its_end(source, tmp_path, monkeypatch):
    script = scripts.place(VARIANTS["sft_argparse"], source, tmp_path / "work")

    (report,) = rehearsed(script.parent, ("--steps", "3"), monkeypatch)

    assert report.target == "train.py --steps 3"
    assert report.notes[:2] == ("training reached at line 28", "as on one NVIDIA A100-SXM4-80GB")
    assert [skip for skip in report.skips if not skip.code] == []


@pytest.mark.usefixtures("forked")
def test_a_model_that_is_loaded_under_inference_mode_reaches_its_training(source, tmp_path, monkeypatch):
    script = scripts.place(VARIANTS["torch_loop"], source, tmp_path / "work")
    load = "model = AutoModelForCausalLM.from_pretrained("
    script.write_text(script.read_text().replace(load, f"with torch.inference_mode():\n    {load}"))

    (report,) = rehearsed(script.parent, (), monkeypatch)

    assert report.notes[0].startswith("training reached at line ")
    assert [(one.code, one.consequence) for one in report.violations if one.code == "KB306"] == [("KB306", Consequence.FAILS)]
    assert raised_in((report,)) == (None, None)
