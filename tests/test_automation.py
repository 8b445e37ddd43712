"""The workflows and the recipe of conda: pinned, and of one mind with pyproject.toml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kbitlint.version import VERSION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = ROOT / "action.yml"
#: the first major version on Node 24, or, for an action of steps, that uses such actions
ON_NODE_24 = {
    "actions/checkout": 5,
    "actions/deploy-pages": 5,
    "actions/download-artifact": 7,
    "actions/setup-python": 6,
    "actions/upload-artifact": 6,
    "actions/upload-pages-artifact": 5,
    "github/codeql-action": 4,
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit_and_names_its_version(path):
    uses = re.findall(r"^\s*-?\s*uses: (.+)$", path.read_text(), re.MULTILINE)

    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d[\w.]*", line)] == []


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION, ROOT / "docs" / "usage.md"], ids=lambda path: path.name)
def test_every_action_runs_on_a_node_that_github_still_has(path):
    """Node 20 left the runners in September 2026; a pin to a commit hides the version from linters of workflows."""
    used = re.findall(r"uses: ([\w.-]+/[\w.-]+)[\w./-]*@(?:[0-9a-f]{40} # )?v(\d+)", path.read_text())

    assert used
    assert [(name, major) for name, major in used if int(major) < ON_NODE_24.get(name, 0)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_right_that_a_job_does_not_name(path):
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {}
    assert all("permissions" in job for job in workflow["jobs"].values())


def test_ci_runs_what_the_classifiers_promise():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    promised = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]

    assert jobs["test"]["strategy"]["matrix"]["python"] == promised == jobs["systems"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={promised[0]}"
    systems = {name.partition("-")[0] for name in jobs["systems"]["strategy"]["matrix"]["system"]}
    named = {line.rpartition(":: ")[2] for line in PROJECT["classifiers"] if line.startswith("Operating System")}
    assert {{"ubuntu": "Linux", "macos": "MacOS", "windows": "Windows"}[system] for system in systems} == named
    assert jobs["types"]["strategy"]["matrix"]["system"] == ["linux", "darwin", "win32"]


def test_the_tests_that_ci_names_are_there():
    commands = re.findall(r"tests/[\w/.]+", (ROOT / ".github" / "workflows" / "ci.yml").read_text())

    assert commands
    assert [name for name in commands if not (ROOT / name).exists()] == []


def test_the_conda_recipe_agrees_with_the_package():
    recipe = yaml.safe_load((ROOT / ".ci" / "conda" / "recipe.yaml").read_text())
    floors = {re.split(r"[>;]", line)[0].strip(): re.search(r">=([\d.]+)", line)[1] for line in PROJECT["dependencies"]}
    needed = dict(line.split(" >=") for line in recipe["requirements"]["run"])

    assert recipe["context"]["version"] == VERSION
    assert needed == {"python": PROJECT["requires-python"].removeprefix(">="), **floors}
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {place}" for name, place in PROJECT["scripts"].items()]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]


def test_the_long_description_has_no_link_that_only_the_repository_resolves(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "kbitlint", "rules"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    made = "from setuptools.build_meta import prepare_metadata_for_build_wheel as made; print(made('out'))"
    (tmp_path / "out").mkdir()
    subprocess.run([sys.executable, "-c", made], cwd=tmp_path, check=True, capture_output=True)
    (metadata,) = (tmp_path / "out").glob("*.dist-info/METADATA")

    text = metadata.read_text()
    links = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)", text)
    own = [link for link in links if f"/v{VERSION}/" in link]

    assert "Description-Content-Type: text/markdown" in text
    assert [link for link in links if not link.startswith(("https://", "#", "mailto:"))] == []
    assert own
    assert [link for link in own if not (ROOT / link.partition(f"/v{VERSION}/")[2].partition("#")[0]).exists()] == []
