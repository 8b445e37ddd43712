"""What others read of this repository: the GitHub Action, the addresses, the schema of the settings, the release."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator
from script_cases import ADAPTED, IMPORTS, LOADED, RANKED

from kbitlint import config
from kbitlint.version import HOME, VERSION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BASH = shutil.which("bash") or "bash"
ROOT = Path(__file__).parents[1]
FAULTY = IMPORTS + LOADED + "model = prepare_model_for_kbit_training(model)\n" + ADAPTED + RANKED


def action(folder, **inputs):
    """Run the check and the result of the action as a runner does; return the exit code, the outputs, the summary."""
    steps = {step.get("name"): step for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]}
    declared = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    given = {name: str(inputs.get(name.replace("-", "_"), row["default"])) for name, row in declared.items()}
    outputs, page = folder / "outputs", folder / "summary.md"
    values = {f"inputs.{name}": value for name, value in given.items()} | {"github.action_path": str(ROOT)}
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(outputs),
        "GITHUB_STEP_SUMMARY": str(page),
    }

    def step(name):
        def filled(text):
            return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: values[found[1]], text)

        own = {key: filled(value) for key, value in steps[name].get("env", {}).items()}
        return subprocess.run(
            [BASH, "-e", "-c", filled(steps[name]["run"])],
            cwd=folder,
            env=environment | own,
            capture_output=True,
            check=False,
        ).returncode

    checked = step("Check")
    made = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    values["steps.check.outputs.exit-code"] = made["exit-code"]
    return (checked, step("Result")), made, page.read_text()


def test_the_action_writes_a_log_a_summary_and_ends_with_the_exit_code(tmp_path):
    (tmp_path / "train.py").write_text(FAULTY)

    codes, outputs, page = action(tmp_path)
    log = json.loads((tmp_path / "kbitlint.sarif").read_text())

    assert (codes, outputs) == ((0, 1), {"exit-code": "1"})
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["KB401"]
    assert "| warning | KB401 | `train.py:" in page


def test_the_action_is_green_where_nothing_is_found_and_fails_where_nothing_could_be_checked(tmp_path):
    (tmp_path / "plain.py").write_text("print()\n")

    clean = action(tmp_path)
    (tmp_path / "outputs").unlink()
    (tmp_path / "kbitlint.sarif").unlink()
    gone = action(tmp_path, targets="gone.py")

    assert (clean[0], "No violations." in clean[2]) == ((0, 0), True)
    assert (gone[0], "there is no such file or folder" in gone[2]) == ((0, 2), True)


def test_a_viewer_of_sarif_shows_each_finding_at_its_place(run, tmp_path):
    """sarif-tools, with which people read logs and convert them."""
    loader = pytest.importorskip("sarif.loader", reason="sarif-tools is not installed")
    for name in ("notebook_frozen.ipynb", "prepared_too_late.py"):
        shutil.copy(ROOT / "tests" / "data" / "scripts" / name, tmp_path)
    result = run("check", ".", "--output-format", "sarif", "--output-file", "kbitlint.sarif")

    rows = loader.load_sarif_file(str(tmp_path / "kbitlint.sarif")).get_records()
    lines = {name: (tmp_path / name).read_text().splitlines() for name in {row["Location"] for row in rows}}

    assert (result.exit_code, sorted(lines)) == (1, ["notebook_frozen.ipynb", "prepared_too_late.py"])
    assert {row["Tool"] for row in rows} == {"kbitlint"}
    assert [
        row for row in rows if row["Code"] not in lines[row["Location"]][int(row["Line"]) - 1].partition("# fault: ")[2]
    ] == []


def test_the_addresses_agree():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]

    assert urls["Homepage"] == HOME
    assert all(url.startswith(HOME) for url in urls.values())


@pytest.fixture(scope="module")
def schema():
    made = json.loads(files("kbitlint.output").joinpath("settings.schema.json").read_text())
    Draft7Validator.check_schema(made)
    return made


def test_the_schema_of_the_settings_has_every_key_with_a_description(schema):
    keys = {field.name.replace("_", "-") for field in dataclasses.fields(config.Config)} - {"file"}

    assert set(schema["properties"]) == keys
    assert all(row["description"] for row in schema["properties"].values())


def test_the_schema_takes_what_the_documentation_shows_and_refuses_what_the_program_refuses(schema):
    (shown,) = re.findall(r"```toml\n(\[tool\.kbitlint\].*?)```", (ROOT / "docs" / "usage.md").read_text(), re.DOTALL)
    table = tomllib.loads(shown)["tool"]["kbitlint"]

    def faults(**changes):
        return [error.message for error in Draft7Validator(schema).iter_errors({**table, **changes})]

    assert faults() == []
    for change in ({"fail-on": "never"}, {"meta": "yes"}, {"quantise": "nf4"}, {"ignore-in": [{"rule": "KB101"}]}):
        assert faults(**change)


def test_a_release_needs_a_tag_that_agrees_with_the_version():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    (check,) = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "VERSION" in step.get("run", "")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def passes(tag):
        environment = os.environ | {"GITHUB_REF_NAME": tag, "PATH": path}
        return subprocess.run([BASH, "-e", "-c", check], cwd=ROOT, env=environment, check=False).returncode == 0

    assert (passes(f"v{VERSION}"), passes("v9.9.9")) == (True, False)
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
