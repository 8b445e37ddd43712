"""``kbitlint init``: what it leaves is a repository that can commit, shown by a real run of pre-commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kbitlint import config
from kbitlint.cli import hooks
from kbitlint.source.factories import factories

ROOT = Path(__file__).parents[2]
FAULTY = """\
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("base", quantization_config=config)
model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
model = prepare_model_for_kbit_training(model)
Trainer(model, TrainingArguments("out", bf16=True), train_dataset=rows).train()
"""


def notebook_of(text):
    cell = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": text.splitlines(keepends=True),
    }
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def hook_ids(folder):
    return [hook["id"] for hook in yaml.safe_load((folder / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]]


def test_the_published_hooks_are_written_from_the_same_source():
    assert (ROOT / hooks.PUBLISHED).read_text() == hooks.published()
    local = yaml.safe_load("repos:\n" + hooks.local(models=True))["repos"][0]["hooks"]
    published = {hook["id"]: hook for hook in yaml.safe_load(hooks.published())}
    for hook in local:
        same = ("entry", "files", "pass_filenames", "always_run", "name")
        assert {key: hook.get(key) for key in same} == {key: published[hook["id"]].get(key) for key in same}


def test_a_project_gets_what_was_found_and_could_be_audited(run, tmp_path):
    for folder in ("base", "runs/adapter", "web"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1}')
    (tmp_path / "runs" / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "web" / "config.json").write_text("{}")

    result = run("init")

    settings = config.load(tmp_path / "pyproject.toml")
    assert (result.exit_code, settings.targets, settings.meta) == (0, (".", "base"), True)
    assert "left out: runs/adapter" in result.stdout
    assert hook_ids(tmp_path) == ["kbitlint", "kbitlint-models"]
    assert run("config").exit_code == 0
    assert run("check", "--no-run").exit_code == 0


def test_an_empty_folder_gets_one_hook_and_its_check_is_clean(run, tmp_path):
    result = run("init")
    again = run("check")

    assert (result.exit_code, again.exit_code) == (0, 0)
    assert config.load(tmp_path / "pyproject.toml").targets == (".",)
    assert hook_ids(tmp_path) == ["kbitlint"]


def test_functions_are_named_and_listed_once_they_were_run(run, tmp_path):
    (tmp_path / "train.py").write_text(
        "from peft import get_peft_model\nimport plants\n\n\ndef get_peft_model():\n    return plants.clean()\n\n\n"
        "def build():\n    model = get_peft_model()  # BitsAndBytesConfig(load_in_4bit=True)\n    return model\n"
    )
    named = run("init")
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / ".pre-commit-config.yaml").unlink()
    ran = run("init", "--run")

    assert "kbitlint check train.py:build --meta" in named.stdout
    assert (ran.exit_code, config.load(tmp_path / "pyproject.toml").targets) == (0, (".", "train.py:build"))
    assert hook_ids(tmp_path) == ["kbitlint", "kbitlint-models"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("def build():\n    return AutoModelForCausalLM.from_pretrained('x')", ("build",)),
        ("def build():\n    model = LlamaForCausalLM(c)\n    return model", ()),
        (
            "def build():\n    model = AutoModel.from_config(c)\n    model = get_peft_model(model, l)\n    return model",
            ("build",),
        ),
        ("def build():\n    model = AutoModel.from_config(c)\n    model.train()\n    return model", ("build",)),
        ("def build(name):\n    return AutoModelForCausalLM.from_pretrained(name)", ()),
        ("def build(name='x', *, y=1):\n    return AutoModelForCausalLM.from_pretrained(name)", ("build",)),
        ("def tokens():\n    return AutoTokenizer.from_pretrained('x')", ()),
        ("def run():\n    m = AutoModel.from_config(c)\n    Trainer(m).train()\n    return m", ()),
        ("def run():\n    m = AutoModel.from_config(c)\n    return m, 3", ()),
        ("@app.command()\ndef run():\n    return AutoModel.from_config(c)", ()),
        ("def broken(:", ()),
    ],
)
def test_a_factory_returns_a_model_and_does_nothing_else(body, found):
    assert factories(body) == found


def test_every_commented_setting_is_one_that_is_read(run, tmp_path):
    run("init")
    text = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace("\n# ", "\n"))

    settings = config.load(tmp_path / "pyproject.toml")

    assert (settings.training, settings.baseline) == ("accelerate.yaml", "kbitlint-baseline.json")
    assert settings.ignore_in[0].path == "vision_tower.**"


def test_what_exists_is_kept(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: []\n")

    first, second = run("init"), run("init")

    assert (tmp_path / "pyproject.toml").read_text().startswith('[project]\nname = "x"\n\n[tool.kbitlint]\n')
    assert "add to the repos of .pre-commit-config.yaml:\n" in first.stdout
    assert (tmp_path / ".pre-commit-config.yaml").read_text() == "repos: []\n"
    assert "kept: pyproject.toml has a [tool.kbitlint]\n" in second.stdout
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: [kbitlint]\n")
    assert "kept: .pre-commit-config.yaml names kbitlint\n" in run("init").stdout


def test_what_cannot_be_read_is_one_line(run, tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")

    result = run("init")

    assert (result.exit_code, result.stderr.startswith(f"kbitlint: {tmp_path}/pyproject.toml: cannot be read: ")) == (2, True)


def test_after_init_a_real_commit_passes_and_a_new_fault_fails(tmp_path):
    """A repository of faulty files: git and pre-commit as people run them, from the first commit on."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PRE_COMMIT"))}
    environment |= {
        "HOME": str(tmp_path),
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHONPATH": "",
    }
    repository = tmp_path / "work"
    (repository / "src").mkdir(parents=True)

    def sh(*words, ok=True):
        done = subprocess.run(words, cwd=repository, env=environment, capture_output=True, text=True, check=False)
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    def commit(text, **further):
        sh("git", "add", "-A")
        return sh("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", text, **further)

    sh("git", "init", "-q")
    (repository / "src" / "train.py").write_text(FAULTY)
    (repository / "src" / "train.ipynb").write_text(notebook_of(FAULTY))
    (repository / "recipe.yaml").write_text("base_model: x\nload_in_4bit: true\nadapter: qlora\n")
    (repository / "setup.py").write_text("print('nothing to do with training')\n")
    (repository / "package.json").write_text("{}")
    (repository / "base").mkdir()
    (repository / "base" / "config.json").write_text('{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1}')
    report = sh("kbitlint", "init").stdout
    sh("pre-commit", "install")
    first = commit("everything")
    moved = f"# a comment\n\n\n{FAULTY}"
    (repository / "src" / "train.py").write_text(moved)
    second = commit("lines moved")
    (repository / "src" / "train.py").write_text(moved.replace("bnb_4bit_compute_dtype", "bnb_4bit_compute_type"))
    third = commit("a new fault", ok=False)

    assert "KB202 " in report
    passed = [line.rpartition(".")[2] for line in (first.stderr + first.stdout).splitlines() if line.startswith("kbitlint")]
    assert passed == ["Passed", "Passed"]
    assert second.returncode == 0
    assert third.returncode == 1
    assert "bnb_4bit_compute_type" in third.stderr + third.stdout
    assert "KB202 nothing-trainable" not in third.stderr + third.stdout
