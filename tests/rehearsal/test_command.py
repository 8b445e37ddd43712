"""A command line names a script, its arguments, and what its launcher adds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import kbitlint
from kbitlint.errors import TargetError
from kbitlint.rehearsal.command import Command, read_command, words_of
from kbitlint.runtime import import_state
from kbitlint.target import parse


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("")
    (tmp_path / "lab.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("train.py", Command("train.py")),
        ("lab.ipynb", Command("lab.ipynb")),
        ("train.py --model x.py --lr 1", Command("train.py", ("--model", "x.py", "--lr", "1"))),
        ("SEED=1 train.py", Command("train.py", environment={"SEED": "1"})),
        ("python train.py --a", Command("train.py", ("--a",), launcher="python")),
        ("python -m lab.train --a", Command("lab.train", ("--a",), is_module=True, launcher="python")),
        ("torchrun --nproc_per_node=4 train.py --a", Command("train.py", ("--a",), launcher="torchrun", ranks=4)),
        (
            "accelerate launch --num_processes 2 --config_file c.yaml train.py --a",
            Command("train.py", ("--a",), launcher="accelerate", ranks=2, launch_file="c.yaml"),
        ),
        (
            "accelerate launch --mixed_precision bf16 train.py",
            Command("train.py", launcher="accelerate", environment={"ACCELERATE_MIXED_PRECISION": "bf16"}),
        ),
        ("python -m torch.distributed.run --nproc-per-node 8 train.py", Command("train.py", launcher="python", ranks=8)),
        ("accelerate launch -m lab.train --a", Command("lab.train", ("--a",), is_module=True, launcher="accelerate")),
        ("deepspeed --num_gpus 3 train.py", Command("train.py", launcher="deepspeed", ranks=3)),
        ("srun --ntasks=1 torchrun --nproc_per_node=2 train.py", Command("train.py", launcher="torchrun", ranks=2)),
        ("nohup python3 train.py --a", Command("train.py", ("--a",), launcher="python3")),
        ("SEED=1 srun train.py", Command("train.py", environment={"SEED": "1"})),
    ],
)
def test_a_command_is_read(words, command):
    assert read_command(words.split()) == command


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "name a script, or give the whole command after `--`"),
        ("missing.py", "missing.py: there is no such file"),
        ("make train", "make: is no script (.py or .ipynb) and no launcher (accelerate, torchrun, deepspeed, python)"),
        ("torchrun --nproc_per_node 2", "torchrun: its command names no script (.py or .ipynb)"),
        ("srun -n 2 make", "srun: is no script (.py or .ipynb) and no launcher (accelerate, torchrun, deepspeed, python)"),
        ("gone.sh", "gone.sh: there is no such file"),
    ],
)
def test_a_command_without_a_script_is_refused_in_one_line(words, problem):
    with pytest.raises(TargetError) as refused:
        read_command(words.split())

    assert str(refused.value).removeprefix("rehearse: ") == problem


@pytest.mark.parametrize("name", ["run.sh", "job.slurm", "jobs/job.sbatch"])
def test_the_command_in_a_shell_script_is_read_and_nothing_of_it_is_run(folder, name):
    (folder / "jobs").mkdir()
    command = "srun torchrun --nproc_per_node=2 \\\n  train.py --lr 1e-4 2>&1 | tee log\n"
    (folder / name).write_text(f"#SBATCH --gres=gpu:2\nsource env\n{command}touch done\n")
    expected = Command("train.py", ("--lr", "1e-4"), launcher="torchrun", ranks=2)

    assert read_command([name]) == expected
    assert words_of(name, ()) == (name,)
    assert read_command([name, "--bits", "4"]).argv == ("--lr", "1e-4", "--bits", "4")
    (folder / "train.py").rename(folder / "jobs" / "train.py")
    if "/" in name:
        assert read_command([name]).script == "jobs/train.py", "it lies beside the shell script"
    assert not (folder / "done").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo hi\n", "is a shell script, which is not run: rehearse the command in it that starts Python"),
        ("python train.py\npython train.py --more\n", "is a shell script, which is not run: rehearse the command in it"),
        (
            "python train.py --lr $LR\n",
            "has variables in its command: rehearse it with their values: kbitlint rehearse -- python",
        ),
    ],
)
def test_a_shell_script_without_one_plain_command_is_refused_in_one_line(folder, text, problem):
    (folder / "run.sh").write_text(text)

    with pytest.raises(TargetError) as refused:
        read_command(["run.sh"])

    assert str(refused.value).startswith(f"run.sh: {problem}")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "it is a named pipe, not a file"),
        (os.mkdir, "Is a directory"),
        (lambda name: Path(name).symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda name: os.truncate(os.open(name, os.O_CREAT | os.O_WRONLY), 65 * 2**20), "it is larger than 64 MiB"),
    ],
    ids=["pipe", "folder", "device", "huge"],
)
@pytest.mark.parametrize("suffix", [".py", ".ipynb"])
def test_a_script_that_is_no_file_of_text_is_refused_in_one_line(make, problem, suffix):
    make(f"odd{suffix}")

    for refuse in (lambda: read_command([f"odd{suffix}"]), lambda: kbitlint.rehearse(f"odd{suffix}")):
        with pytest.raises(TargetError) as refused:
            refuse()
        assert str(refused.value) == f"odd{suffix}: cannot be read: {problem}"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "it is a named pipe, not a file"),
        (lambda name: Path(name).symlink_to("/dev/zero"), "it is a device, not a file"),
    ],
    ids=["pipe", "device"],
)
def test_a_function_in_what_is_no_file_is_refused_in_one_line(make, problem):
    make("odd.py")

    with pytest.raises(TargetError, match=problem):
        import_state.function_of(parse("odd.py:make"))
