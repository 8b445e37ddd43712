"""``kbitlint env``: versions, what they require of each other, and what they allow; rows as their sources say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import transformers.utils.import_utils as floors

from kbitlint.cli.env import Conflict, environment
from kbitlint.upstream.features import Devices, Feature, features
from kbitlint.upstream.quantization import METHODS

GPUS = Devices(("card", "card"), cuda=True)


def package(folder, name, version, *requires):
    """Install the metadata of a package, which is all that is read of it."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (place / "METADATA").write_text("\n".join(lines) + "\n")


def command(folder, *arguments):
    run = [sys.executable, "-m", "kbitlint", "env", *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(folder), "PATH": ""})


def test_the_installed_versions_go_together(tmp_path):
    result = command(tmp_path)

    assert (result.returncode, result.stderr) == (0, "")
    assert "the versions go together" in result.stdout
    assert "  yes  nf4 on a CPU" in result.stdout.splitlines()


def test_a_package_that_requires_another_version_is_a_conflict(tmp_path):
    package(tmp_path, "deepspeed", "0.9.0", "torch<2", "ninja-of-no-one", "peft; extra == 'dev'")

    result = command(tmp_path, "--format", "json")

    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert [(one["package"], one["requires"]) for one in document["conflicts"]] == [
        ("deepspeed 0.9.0", "torch<2"),
        ("deepspeed 0.9.0", "ninja-of-no-one"),
    ]
    (zero,) = [row for row in document["features"] if row["name"] == "zero2, zero3"]
    assert (zero["works"], zero["lacks"][0]) == (False, "deepspeed>=0.9.3 (0.9.0 is installed)")
    assert {"kind", "name", "works", "trains", "lacks", "remark", "source"} == set(zero)


def test_a_conflict_is_one_sentence():
    assert str(Conflict("trl 1.16.0", "transformers>=4.56.2", "4.40")) == (
        "trl 1.16.0 requires transformers>=4.56.2, and 4.40 is installed"
    )
    assert str(Conflict("trl 1.16.0", "datasets>=4.7", "")) == "trl 1.16.0 requires datasets>=4.7, and it is not installed"


def test_without_packages_every_row_that_needs_one_lacks_it(monkeypatch):
    monkeypatch.setattr("kbitlint.cli.env._versions", lambda _: iter(()))

    found = environment()

    assert [feature.name for feature, lacks in found.rows() if not lacks] == []
    assert "no package of a model" in found.as_text(80, color=False)


ROW = Feature("strategy", "zero", "", (("deepspeed", "0.9.3"),), "gpus", "", "")


@pytest.mark.parametrize(
    ("versions", "devices", "lacks"),
    [
        ({"deepspeed": "0.19.8"}, GPUS, ()),
        ({"deepspeed": "0.9.2"}, GPUS, ("deepspeed>=0.9.3 (0.9.2 is installed)",)),
        ({}, Devices(), ("deepspeed>=0.9.3", "several accelerators")),
        ({"deepspeed": "1"}, Devices(("one",)), ("several accelerators",)),
    ],
)
def test_a_row_names_what_it_lacks(versions, devices, lacks):
    assert ROW.lacks(versions, devices) == lacks


FLOORS = {
    "bitsandbytes": "BITSANDBYTES_MIN_VERSION",
    "hqq": "HQQ_MIN_VERSION",
    "vptq": "VPTQ_MIN_VERSION",
}


@pytest.mark.parametrize(("name", "constant"), FLOORS.items())
def test_the_floors_are_those_of_the_installed_transformers(name, constant):
    needed = {least for feature in features() for one, least in feature.needs if one == name and least}

    assert getattr(floors, constant) in needed


def test_the_floors_of_peft_and_accelerate_are_in_their_code():
    needs = {need for feature in features() for need in feature.needs}
    text = importlib.util.find_spec("peft.import_utils").loader.get_source("peft.import_utils")
    constants = importlib.import_module("accelerate.utils.constants")

    for package_name, least in (("gptqmodel", "7.0.0"), ("optimum", "1.24.0"), ("torchao", "0.16.0")):
        assert (package_name, least) in needs
        assert f'parse("{least}")' in text
    assert ("torch", constants.FSDP2_PYTORCH_VERSION) in needs


def test_each_method_is_one_that_reports_know():
    named = {feature.method for feature in features() if feature.method}

    assert named <= {method.name for method in METHODS}
    assert {feature.name for feature in features() if not feature.trains} == {"vptq, for inference", "mxfp4, for inference"}
    assert all(feature.source for feature in features())
