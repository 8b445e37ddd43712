from __future__ import annotations

import argparse

import pytest
from script_cases import LOADED, TRAINED

from kbitlint.api import check

CODE = "KB579"
FLAG = "parser.add_argument('--bf16', type={}, default=False)"
SCRIPT = """\
import argparse
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments
"""


def found(folder, kind, command):
    (folder / "train.py").write_text(
        f"{SCRIPT}parser = argparse.ArgumentParser()\n{FLAG.format(kind)}\nargs = parser.parse_args()\n{LOADED}{TRAINED}"
    )
    (folder / "run.sh").write_text(f"python train.py {command}\n")
    report = check(str(folder / "train.py"), select=[CODE])
    return [(one.severity.value, one.at.line, one.message) for one in report.violations]


def test_a_text_that_means_no(tmp_path):
    message = "--bf16 has the type bool, so the False that the launch passes is True"
    assert found(tmp_path, "bool", "--bf16 False") == [("error", 5, message)]


@pytest.mark.parametrize(("kind", "command"), [("bool", "--bf16 True"), ("bool", "--lr 1"), ("read_flag", "--bf16 False")])
def test_look_alikes(tmp_path, kind, command):
    assert found(tmp_path, kind, command) == []


def test_argparse_takes_the_text_for_true():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bf16", type=bool)

    assert parser.parse_args(["--bf16", "False"]).bf16 is True
