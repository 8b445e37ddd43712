"""Scripts, notebooks and folders as targets: what is read, what is said of it, what is written back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from written import ADAPTED, IMPORTS, LOADED, PREPARED, TRAINED

import kbitlint
from kbitlint import sweep, writing
from kbitlint.source import documents

SCRIPTS = Path(__file__).parent / "scripts"
PREPARE = "model = prepare_model_for_kbit_training(model)\n"
FAULTY = IMPORTS + LOADED + PREPARE + ADAPTED + TRAINED
CLEAN = IMPORTS + LOADED + PREPARED + ADAPTED + TRAINED


def test_a_script_is_checked_and_repaired_through_the_command_line(run, tmp_path):
    (tmp_path / "train.py").write_text(FAULTY)

    before, shown, fixed, after = (
        run(*arguments)
        for arguments in (("check", "train.py"), ("check", "--diff", "train.py"), ("--fix", "train.py"), ("check", "train.py"))
    )

    assert [result.exit_code for result in (before, shown, fixed, after)] == [1, 1, 0, 0]
    assert "train.py:10 prepare_model_for_kbit_training" in before.output
    assert "+model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs" in shown.output
    assert "fixed with 1 edit in 1 pass" in fixed.output
    assert (tmp_path / "train.py").read_text() == CLEAN


def test_python_may_ask_too(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(FAULTY)

    assert [v.code for v in kbitlint.check(str(path)).violations] == ["KB401"]
    assert len(kbitlint.plan(str(path))) == 1
    assert kbitlint.fix(str(path)).violations == ()


def test_a_script_about_something_else_is_nothing_to_check(run, tmp_path):
    (tmp_path / "web.py").write_text("print('hello')\n")

    result = run("check", "web.py")

    assert (result.exit_code, "nothing here loads, prepares or trains a quantized model" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.py", b"from peft import PeftModel\ndef f(:\n", "is not valid Python: invalid syntax (line 2)"),
        ("a.py", b"# PeftModel \xff\n", "has no usable encoding: invalid or missing encoding declaration"),
        ("a.py", b"# -*- coding: nonsense -*-\n# PeftModel\n", "has no usable encoding: unknown encoding: nonsense"),
        ("a.ipynb", b'{"cells": PeftModel', "is not valid JSON: a value is expected (line 1, column 11)"),
        ("a.ipynb", b'{"PeftModel": []}', "cells: must be a list, as in nbformat 4"),
        ("a.yaml", b"load_in_4bit: [\n", "is not valid YAML: did not find expected node content (line 2, column 1)"),
        ("a.json", b'{"load_in_4bit": tru}', "is not valid JSON: a value is expected (line 1, column 18)"),
    ],
)
def test_bad_input_is_one_clear_line(run, tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)

    result = run("check", name)

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: {name}: {problem}\n")


def test_what_is_too_large_is_no_script(run, tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(FAULTY)
    monkeypatch.setattr(documents, "MAX_BYTES", 10)

    assert "is larger than 0 MiB; this is no script" in run("check", "a.py").stderr


def test_what_cannot_be_read_or_written_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(kbitlint.KbitlintError, match="cannot be read: No such file or directory"):
        documents.read(tmp_path / "gone.py")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    path = tmp_path / "train.py"
    path.write_text(FAULTY)
    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(kbitlint.KbitlintError, match=r"train\.py: cannot be written: No space left on device"):
        kbitlint.fix(str(path))

    assert path.read_text() == FAULTY
    assert [item.name for item in tmp_path.iterdir()] == ["train.py"]


def test_line_ends_encoding_and_permissions_stay(tmp_path):
    path = tmp_path / "train.py"
    text = "# -*- coding: latin-1 -*-\n# caf\xe9\n" + FAULTY.replace("(model)\n", "(\n    model,\n)\n")
    path.write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
    path.chmod(0o755)

    kbitlint.fix(str(path))

    expected = text.replace("    model,\n", '    model,\n    gradient_checkpointing_kwargs={"use_reentrant": False},\n')
    assert path.read_bytes() == expected.replace("\n", "\r\n").encode("latin-1")
    assert path.stat().st_mode & 0o777 == 0o755


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    real, link = tmp_path / "real.py", tmp_path / "link.py"
    real.write_text(FAULTY)
    link.symlink_to(real)

    kbitlint.fix(str(link))

    assert link.is_symlink()
    assert real.read_text() == CLEAN


# ------------------------------------------------------------------------------------------------------- notebooks


def test_a_notebook_is_repaired_in_its_cell_and_the_rest_stays_byte_for_byte(tmp_path):
    path = tmp_path / "n.ipynb"
    before = (SCRIPTS / "notebook_classic.ipynb").read_text()
    path.write_text(before)

    report = kbitlint.check(str(path))
    kbitlint.fix(str(path))

    assert [str(v.at) for v in report.violations] == [f"{path}:1 cell 5 prepare_model_for_kbit_training"]
    kwargs = '(model, gradient_checkpointing_kwargs={\\"use_reentrant\\": False})'
    assert path.read_text() == before.replace("kbit_training(model)", f"kbit_training{kwargs}")


@pytest.mark.parametrize(
    "source", [["get_peft_model(m)\n", "prepare_model_for_kbit_training(m)"], "prepare_model_for_kbit_training(m)"]
)
def test_sources_of_cells_are_lists_or_texts(tmp_path, source):
    path = tmp_path / "n.ipynb"
    cells = [{"cell_type": "code", "source": source}, {"cell_type": "code"}, {"cell_type": "code", "source": [1]}, 3]
    path.write_text(json.dumps({"cells": cells}))

    assert {v.code for v in kbitlint.check(str(path)).violations} == {"KB401"}
    kbitlint.fix(str(path))
    assert kbitlint.check(str(path)).violations == ()
    assert type(json.loads(path.read_text())["cells"][0]["source"]) is type(source)


def test_a_cell_that_is_no_python_does_not_hide_the_others(tmp_path):
    path = tmp_path / "n.ipynb"
    sources = [
        "this is no Python (",
        "%%html\n<b>PeftModel</b>",
        "files = !ls \\\n  -l\n!pip install \\\n  peft",
        "help?",
        PREPARE,
    ]
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": source} for source in sources]}))

    (violation,) = kbitlint.check(str(path)).violations

    assert (violation.code, violation.at.path, violation.at.line) == ("KB401", "cell 5 prepare_model_for_kbit_training", 1)


# --------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def repository(tmp_path):
    """A folder with a faulty script, ignored ones, and files that concern nothing."""
    for name, text in {
        "train.py": FAULTY,
        "lib/model.py": CLEAN,
        "lib/web.py": "print('hello')\n",
        "lib/broken.py": "from peft import PeftModel\ndef f(:\n",
        "old/train.py": FAULTY,
        "lib/generated/train.py": FAULTY,
        "lib/generated/kept.py": FAULTY,
        ".hidden/train.py": FAULTY,
        "node_modules/train.py": FAULTY,
        ".gitignore": "/old/\n",
        "lib/.gitignore": "generated/*\n!generated/kept.py\n",
        "config.yaml": "name: web\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".git").mkdir()
    return tmp_path


def test_a_folder_is_walked_as_git_sees_it(run, repository):
    result = run("check", ".", "--format", "json")

    (target,) = json.loads(result.stdout)["targets"]
    assert [(v["at"]["file"], v["code"]) for v in target["violations"]] == [
        ("lib/generated/kept.py", "KB401"),
        ("train.py", "KB401"),
    ]
    assert target["summary"] == "3 of 6 files concern the training of quantized models"
    assert [skip["reason"] for skip in target["skips"]] == ["lib/broken.py is not valid Python: invalid syntax (line 2)"]
    assert result.exit_code == 1


def test_checkpoints_in_a_repository_are_checked_too(tmp_path):
    for name, text in {
        "base/config.json": '{"model_type": "llama", "quantization_config": {"quant_method": "vptq"}}',
        "adapter/adapter_config.json": '{"peft_type": "LORA", "inference_mode": true}',
        "web/config.json": '{"quantization_config": 1}',
        "bad/config.json": '{"quantization_config": ',
        "train.py": CLEAN,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    report = kbitlint.check(str(tmp_path))

    assert [(v.code, str(v.at)) for v in report.violations] == [
        ("KB202", "adapter/adapter_config.json inference_mode"),
        ("KB524", "base/config.json quantization_config.quant_method"),
    ]
    assert [skip.reason.partition(" is")[0] for skip in report.skips] == ["bad/config.json"]


def test_a_folder_inside_a_repository_obeys_the_files_above(run, repository):
    assert run("check", "old").stderr.startswith("kbitlint: old: the folder holds no checkpoint, script, notebook")
    assert "1 file" in run("check", "lib/generated").output


def test_a_folder_is_repaired_and_what_cannot_be_read_is_left(run, repository):
    result = run("--fix", ".")

    assert result.exit_code == 0
    assert (repository / "train.py").read_text() == (repository / "lib/generated/kept.py").read_text() == CLEAN
    assert (repository / "old/train.py").read_text() == FAULTY


def test_many_files_are_checked_in_parallel_with_the_same_result(tmp_path, monkeypatch):
    for number in range(9):
        (tmp_path / f"train{number}.py").write_text(FAULTY)
    alone = kbitlint.check(str(tmp_path))
    monkeypatch.setattr(sweep, "MANY", 2)
    monkeypatch.setattr(sweep.os, "cpu_count", lambda: 2)

    assert kbitlint.check(str(tmp_path)) == alone
    assert len(alone.violations) == 9


def test_a_file_that_vanishes_is_a_skip(tmp_path):
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "train.py").write_text(FAULTY)

    result = sweep.audit_file(tmp_path / "gone.py", "gone.py", (), kbitlint.TrainingContext())

    assert [skip.reason for skip in result.skips] == ["gone.py cannot be read: No such file or directory"]
    assert sweep._worth(tmp_path / "gone.py")
    assert len(kbitlint.check(str(tmp_path)).violations) == 1


def test_what_is_silenced_is_counted(run, tmp_path):
    (tmp_path / "train.py").write_text(FAULTY.replace("(model)\n", "(model)  # kbitlint: ignore[KB401] measured\n"))

    result = run("check", "train.py")

    assert (result.exit_code, "1 silenced by comments" in result.output) == (0, True)


# ------------------------------------------------------------------------------------------------------- start-up


@pytest.mark.slow
@pytest.mark.parametrize("target", ["qlora_trainer_classic.py", "notebook_classic.ipynb", "axolotl_qlora.yaml", "."])
def test_checking_and_fixing_source_imports_no_torch(target, tmp_path):
    import shutil

    folder = shutil.copytree(SCRIPTS, tmp_path / "scripts")
    code = (
        "import sys\n"
        f"sys.argv = ['kbitlint', '--fix', '--unsafe-fixes', {str(folder / target)!r}]\n"
        "from kbitlint.cli import main\n"
        "try: main()\n"
        "except SystemExit as leave: print(leave.code)\n"
        "print(sorted({'torch', 'transformers', 'peft', 'huggingface_hub', 'numpy', 'accelerate'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert done.stdout.splitlines()[-2] in ("0", "1"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("pin", "found"),
    [
        ("transformers==4.38.2", ["KB401"]),
        ("transformers~=4.40", ["KB401"]),
        ("transformers[torch]<5", ["KB401"]),
        ("transformers>=5", []),
        ("peft==0.11", []),
    ],
)
def test_a_project_that_pins_an_older_version_is_judged_by_it(tmp_path, pin, found):
    enabled = "model.gradient_checkpointing_enable()\nmodel.enable_input_require_grads()\n"
    (tmp_path / "train.py").write_text(IMPORTS + LOADED + enabled + ADAPTED + TRAINED)
    (tmp_path / "requirements.txt").write_text(f"torch\n{pin}\n")

    assert [v.code for v in kbitlint.check(str(tmp_path / "train.py"), select="KB401").violations] == found
