"""The command line as people know it from other linters: formats, counts, excludes, settings, texts of editors, comments."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, RANKED

from kbitlint.cli import main

FAULTY = IMPORTS + LOADED + "model = prepare_model_for_kbit_training(model)\n" + ADAPTED + RANKED
LINE = FAULTY.splitlines().index("model = prepare_model_for_kbit_training(model)") + 1
MESSAGE = "use_reentrant is not passed, so torch checkpoints reentrantly"
MESSAGE += ", and on several ranks Trainer lets DDP look for unused parameters"


@pytest.fixture
def project(run, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "src" / "train.py").write_text(FAULTY)
    (tmp_path / "old" / "train.py").write_text(FAULTY)
    return run


def files_of(result):
    return sorted({v["at"]["file"] for report in json.loads(result.stdout)["targets"] for v in report["violations"]})


def test_concise_is_one_line_a_finding(project):
    result = project("check", "src", "--output-format", "concise")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"src/train.py:{LINE}:9: KB401 warning [*] {MESSAGE}: prepare_model_for_kbit_training",
        "1 finding, 1 fixable with --fix",
    ]
    assert project("check", "src", "--select", "KB202", "--output-format", "concise").stdout == "clean\n"
    assert project("check", "src", "--select", "KB101", "--output-format", "concise").stdout == "nothing to check\n"


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_text_that_python_does_not_read_is_not_called_clean(project, tmp_path, mark):
    code = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    (tmp_path / "src" / "train.py").write_bytes(mark + FAULTY.encode(code))
    problem = "train.py is UTF-16, which Python does not read: save it as UTF-8"

    folder, named = project("check", "src", "--format", "concise"), project("check", "src/train.py")

    assert (folder.exit_code, folder.stdout) == (0, f"src: skipped: {problem}\nnothing to check\n")
    assert (named.exit_code, named.stderr) == (2, f"kbitlint: src/{problem.replace(' is', ': is')}\n")


def test_statistics_count_each_rule_as_text_and_json(project):
    text = project("check", ".", "--statistics")
    rows = json.loads(project("check", ".", "--statistics", "--output-format", "json").stdout)

    assert (text.exit_code, text.stdout) == (
        1,
        "2  KB401  [*] reentrant-checkpointing  warning\n[*] fixable with --fix\n",
    )
    assert rows == [{"code": "KB401", "count": 2, "fix": "safe", "severity": "warning", "slug": "reentrant-checkpointing"}]


def test_quiet_prints_findings_only(project, tmp_path):
    (tmp_path / "clean.py").write_text("print()\n")

    found, clean = project("check", "src", "-q"), project("check", "clean.py", "--quiet")

    assert found.stdout.splitlines()[:3] == ["src", "", f"KB401 reentrant-checkpointing{'warning':>51}"]
    assert found.stdout.rstrip().endswith("fix: checkpoint without reentry  [safe]")
    assert (clean.exit_code, clean.stdout, clean.stderr) == (0, "", "")


@pytest.mark.parametrize("pattern", ["old", "old/", "/old/*.py", "o*"])
def test_excludes_of_the_command_line_and_of_the_project(project, tmp_path, monkeypatch, pattern):
    everything = project("check", ".", "--format", "json")
    given = project("check", ".", "--exclude", pattern, "--format", "json")
    (tmp_path / "pyproject.toml").write_text(f'[tool.kbitlint]\nextend-exclude = ["{pattern}"]\n')
    extended = project("check", ".", "--format", "json")
    named = project("check", "old/train.py")
    forced = project("check", "old/train.py", "--force-exclude")
    monkeypatch.chdir(tmp_path / "old")
    below = project("check", "..", "--format", "json")

    assert files_of(everything) == ["old/train.py", "src/train.py"]
    assert files_of(given) == files_of(extended) == files_of(below) == ["src/train.py"]
    assert (named.exit_code, forced.exit_code, forced.stderr) == (1, 0, "kbitlint: the project excludes every target\n")


@pytest.mark.parametrize("key", ["exclude", "extend-exclude"])
def test_an_exclude_that_is_no_pattern_is_one_line(project, tmp_path, key):
    (tmp_path / "pyproject.toml").write_text(f'[tool.kbitlint]\n{key} = ["old/", "[z-a]"]\n')

    result = project("check", ".")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "kbitlint: exclude: '[z-a]' is no pattern of a .gitignore\n"


def test_exclude_replaces_the_folders_that_are_left_out_by_default(project, tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "train.py").write_text(FAULTY)

    default = files_of(project("check", ".", "--format", "json"))
    replaced = files_of(project("check", ".", "--config", "exclude = []", "--format", "json"))

    assert default == ["old/train.py", "src/train.py"]
    assert replaced == ["build/train.py", "old/train.py", "src/train.py"]


def test_settings_of_a_file_of_a_line_and_shown(project, tmp_path):
    (tmp_path / "strict.toml").write_text('fail-on = "info"\nignore = ["KB401"]\n')

    of_file = project("check", "src", "--config", "strict.toml")
    of_line = project("check", "src", "--config", 'ignore = ["KB4"]')
    shown = project("check", "--show-settings", "--config", "strict.toml", "--config", "meta = true", "--select", "KB4").stdout

    assert (of_file.exit_code, of_line.exit_code) == (0, 0)
    for line in ('fail-on = "info"', "meta = true", 'select = ["KB4"]', 'ignore = ["KB401"]'):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--config", "gone.toml"], "--config gone.toml: there is no such file"),
        (["--config", "a.toml", "--config", "b.toml"], "--config b.toml: is the second file; name one,"),
        (["--config", "metta = true"], "--config: metta: unknown key; did you mean 'meta'?"),
        (["--config", "meta = tru"], "--config: tool.kbitlint: the file is not valid TOML: "),
    ],
)
def test_wrong_settings_are_one_line(project, given, problem):
    result = project("check", "src", *given)

    assert (result.exit_code, result.stdout, result.stderr.startswith(f"kbitlint: {problem}")) == (2, "", True)


def test_unsafe_fixes_alone_changes_nothing(project, tmp_path):
    path = tmp_path / "src" / "train.py"
    path.write_text(FAULTY.replace("compute_dtype", "compute_type"))
    before = path.read_text()

    alone = project("check", "src/train.py", "--unsafe-fixes")
    unchanged = path.read_text() == before
    project("check", "src/train.py", "--unsafe-fixes", "--fix")

    assert unchanged
    assert alone.stderr == "kbitlint: --unsafe-fixes changes nothing by itself: give --fix too\n"
    assert path.read_text() != before


def test_a_fix_can_fail_the_run(project):
    first = project("check", "src", "--fix", "--exit-non-zero-on-fix")
    second = project("check", "src", "--fix", "--exit-non-zero-on-fix")

    assert (first.exit_code, second.exit_code) == (1, 0)


def invoke_with(text, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "kbitlint", *arguments], input=text.encode(), capture_output=True, check=False, env=os.environ
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_text_of_an_editor_is_audited_fixed_and_shown_as_a_diff(project):
    code, report, _ = invoke_with(FAULTY, "check", "--stdin-filename", "src/new.py", "-", "--output-format", "concise")
    fixed, text, errors = invoke_with(FAULTY, "check", "--fix", "--stdin-filename", "src/new.py", "-")
    _, diff, _ = invoke_with(FAULTY, "check", "--diff", "--stdin-filename", "src/new.py", "-")
    again, _, _ = invoke_with(text, "check", "-")
    refused, _, problem = invoke_with(FAULTY, "check", "--stdin-filename", "notes.txt", "-")

    assert (code, report.splitlines()[0].split(" ")[:2]) == (1, [f"src/new.py:{LINE}:9:", "KB401"])
    assert (fixed, errors, text) == (0, "", FAULTY.replace("training(model)", FIXED))
    assert (again, "-model = prepare_model_for_kbit_training(model)\n" in diff) == (0, True)
    assert (refused, problem) == (
        2,
        "kbitlint: notes.txt: the name of a text ends in one of .py, .ipynb, .yaml, .yml, .json, .sh, .slurm, .sbatch\n",
    )


FIXED = 'training(model, gradient_checkpointing_kwargs={"use_reentrant": False})'


def test_comments_are_written_and_the_project_is_clean(project, tmp_path):
    path = tmp_path / "src" / "train.py"
    long = FAULTY.replace(
        "model = prepare_model_for_kbit_training(model)\n",
        "model = prepare_model_for_kbit_training(\n    model,\n)  # as in the paper\n"
        "x = \\\n    prepare_model_for_kbit_training(model)\n",
    )
    path.write_text(long)

    result = project("check", "src", "--add-ignore")
    again = project("check", "src", "--add-ignore")

    assert (result.exit_code, again.stdout) == (0, "added 0 comments to 0 files\n")
    assert result.stdout.startswith("added ")
    assert project("check", "src").exit_code == 0
    lines = [line.partition("# kbitlint")[0].rstrip() for line in path.read_text().splitlines()]
    assert [line for line in lines if line] == [line for line in long.splitlines() if line]
    compile(path.read_text(), "train.py", "exec")


def test_a_comment_that_is_there_gets_the_further_code(project, tmp_path):
    path = tmp_path / "src" / "train.py"
    path.write_text(FAULTY.replace("kbit_training(model)", "kbit_training(model)  # kbitlint: ignore[KB502] why"))

    project("check", "src", "--add-ignore")

    assert "  # kbitlint: ignore[KB502, KB401] why\n" in path.read_text()


def test_json_holds_no_comments_and_notebooks_do(project, tmp_path):
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**cell, "source": FAULTY.splitlines(keepends=True)}]
    notebook = tmp_path / "src" / "train.ipynb"
    notebook.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))

    project("check", "src/train.ipynb", "--add-ignore")

    assert project("check", "src/train.ipynb").exit_code == 0
    assert "# kbitlint: ignore[KB401]" in "".join(json.loads(notebook.read_text())["cells"][0]["source"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["src", "--quantize", "nf4"],
            "--quantize applies to a checkpoint folder or adapter folder or Hub id, not to a folder",
        ),
        (["src/train.py", "--no-meta"], "--no-meta applies to a factory in a file or factory in a module, not to a training"),
        (["src/train.py", "--exclude", "x"], "--exclude applies to a folder of scripts, not to a training script"),
        (["src", "--device", "cpu"], "--device changes what --fix does: give --fix too"),
        (["src", "--exit-non-zero-on-fix"], "--exit-non-zero-on-fix changes what --fix does: give --fix too"),
        (["src", "--fix", "--add-ignore"], "--add-ignore accepts what --fix repairs: give one of them"),
        (["src", "--select", ""], "Invalid value for '--select': names no rule; ALL names every one"),
        (["-", "src"], "- is the standard input: name no other target beside it"),
    ],
)
def test_options_that_do_not_apply_are_refused(project, arguments, problem):
    result = project("check", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: {problem}" in result.stderr


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("src/trian.py", "there is no such file or folder; did you mean 'src/train.py'?"),
        ("src/trian.py:build", "there is no file src/trian.py; did you mean 'src/train.py'?"),
        ("src/train.py::build", "a function follows one colon; did you mean 'src/train.py:build'?"),
        ("https://huggingface.co/org/model", "is an address, not the id of a model; did you mean 'org/model'?"),
        ("hf.co/org/model/tree/v1/", "is an address, not the id of a model; did you mean 'org/model@v1'?"),
    ],
)
def test_a_target_that_is_nearly_right_gets_a_suggestion(project, target, problem):
    result = project("check", target)

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: {target}: {problem}\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("rehearse src/trian.py", "kbitlint: src/trian.py: there is no such file; did you mean 'src/train.py'?"),
        ("memory src/trian.py", "kbitlint: src/trian.py: there is no such file; did you mean 'src/train.py'?"),
        ("explain KB2O2", "kbitlint: no rule is called 'KB2O2'; did you mean 'KB202'?"),
        ("check src --select KBlO1", "kbitlint: 'KBlO1' selects no rule; did you mean 'KB101'?"),
        ("fit train.py", "Error: Missing option '--gpu'. A card (4090, A100-40, H100) or its size (24GB)."),
    ],
)
def test_a_slip_of_a_key_gets_the_word_that_was_meant(project, words, line):
    result = project(*words.split())

    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, line)


def test_help_is_a_word_too(project, tmp_path):
    assert project("help").stdout == project("--help").stdout
    assert project("help", "check").stdout == project("check", "--help").stdout


def test_a_job_that_launches_a_script_names_what_to_audit(project, tmp_path):
    (tmp_path / "job.slurm").write_text("#SBATCH --gres=gpu:8\nsrun accelerate launch --num_processes 8 src/train.py --lr 1\n")

    result = project("check", "job.slurm", "--format", "concise")

    skipped = "job.slurm: skipped: it launches src/train.py: check that script, or `kbitlint rehearse job.slurm`"
    assert (result.exit_code, result.stdout) == (0, f"{skipped}\nnothing to check\n")


def test_a_run_without_a_cache_may_be_asked_of_a_script_too(project):
    assert project("check", "src/train.py", "--no-cache").stdout == project("check", "src/train.py").stdout


def test_nothing_checked_is_no_success(project, tmp_path):
    result = project("check", "src/train.py:build", "--no-run")
    both = project("check", "src/train.py:build", "src/train.py", "--no-run", "--select", "KB101,KB920")

    assert (result.exit_code, both.exit_code) == (2, 0)
    assert result.stderr == "kbitlint: nothing was checked: every target is a function, and --no-run runs none\n"


def test_a_standard_input_that_is_closed_is_one_line(project, monkeypatch):
    monkeypatch.setattr("kbitlint.cli.texts.sys", SimpleNamespace(stdin=None))

    result = project("check", "--stdin-filename", "a.py", "-")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "kbitlint: the standard input is closed: there is no text to read\n"


def test_bare_kbitlint_shows_the_help_once(project):
    result = project()

    assert (result.exit_code, result.stderr, result.stdout.count("Usage:")) == (2, "", 1)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_the_help_of_a_command_shows_no_mark_of_its_layout(project, command):
    result = project(command, "--help")

    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if "\\b" in line or "\b" in line] == []


def test_rules_as_json_and_several_documents(project):
    rules = json.loads(project("rules", "--format", "json").stdout)
    documents = project("explain", "KB101", "reentrant-checkpointing").stdout

    assert {"code", "slug", "severity", "consequence", "since", "title", "surfaces", "options", "document"} == set(rules[0])
    assert [rule["code"] for rule in rules] == sorted(rule["code"] for rule in rules)
    assert [line for line in documents.splitlines() if line.startswith("# ")] == [
        "# low-precision-norm (KB101)",
        "# reentrant-checkpointing (KB401)",
    ]


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "0"}, False), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_are_forced_and_forbidden(project, monkeypatch, variables, coloured):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert ("\x1b[" in project("check", "src").stdout) is coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_once_the_script_is_installed(project, tmp_path, shell):
    environment = {**os.environ, "HOME": str(tmp_path)}
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "kbitlint"]
    done = subprocess.run(
        [*command, "completion", shell, "--install"], env=environment, capture_output=True, text=True, check=True
    )
    words = {"COMP_WORDS": "kbitlint ch", "COMP_CWORD": "1" if shell != "fish" else "ch"}
    asked = environment | words | {"_KBITLINT_COMPLETE": f"{shell}_complete"}
    answer = subprocess.run(command, env=asked, capture_output=True, text=True, check=False)

    path = done.stdout.split()[1].rstrip(";")
    assert f"_KBITLINT_COMPLETE={shell}_complete" in Path(path).read_text()
    assert "check" in answer.stdout
    assert (done.stderr, answer.stderr) == ("", "")


def test_every_command_has_its_help():
    assert {name for name, command in main.commands.items() if not command.help} == set()
