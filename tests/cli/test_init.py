"""``kbitlint init``."""

from __future__ import annotations

from pathlib import Path

import yaml

from kbitlint import config


def test_an_empty_project_gets_settings_and_hooks_that_work(run, tmp_path):
    for folder in ("base", "runs/adapter", "web"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "runs" / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "web" / "config.json").write_text("{}")

    result = run("init")

    assert (result.exit_code, result.stdout) == (
        0,
        "written: [tool.kbitlint] in pyproject.toml, 2 targets found\nwritten: .pre-commit-config.yaml with two hooks\n",
    )
    settings = config.load(tmp_path / "pyproject.toml")
    assert (settings.targets, settings.meta) == (("base", "runs/adapter"), True)
    hooks = yaml.safe_load((tmp_path / ".pre-commit-config.yaml").read_text())
    assert [hook["id"] for hook in hooks["repos"][0]["hooks"]] == ["kbitlint", "kbitlint-models"]
    published = yaml.safe_load((Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text())
    ours = hooks["repos"][0]["hooks"][0]
    assert [(hook["entry"], hook["files"]) for hook in published if hook["id"] == "kbitlint"] == [
        (ours["entry"], ours["files"])
    ]
    assert run("config").exit_code == 0


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
    assert first.stdout.splitlines()[1] == "add to the repos of .pre-commit-config.yaml:"
    assert (tmp_path / ".pre-commit-config.yaml").read_text() == "repos: []\n"
    assert second.stdout.splitlines()[0] == "kept: pyproject.toml has a [tool.kbitlint]"
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: [kbitlint]\n")
    assert run("init").stdout.splitlines()[1] == "kept: .pre-commit-config.yaml names kbitlint"


def test_what_cannot_be_read_is_one_line(run, tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")

    result = run("init")

    assert (result.exit_code, result.stderr.startswith(f"kbitlint: {tmp_path}/pyproject.toml: cannot be read: ")) == (2, True)
