"""Files of a repository that a script imports: they are followed, with a bound, and findings stand where the fault is."""

from __future__ import annotations

import pytest

import kbitlint
from kbitlint.source.interpreter import imported_files

TRAIN = """\
from lib.models import load
from transformers import Trainer, TrainingArguments
model = load(4)
Trainer(model=model, args=TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=None).train()
"""
MODELS = """\
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from .names import BASE


def load(bits):
    bnb = BitsAndBytesConfig(load_in_4bit=bits == 4, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)
    model = AutoModelForCausalLM.from_pretrained(BASE, quantization_config=bnb)
    model = get_peft_model(model, LoraConfig(r=8))
    return prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
"""
NAMES = 'from transformers import TrainingArguments\nBASE = "google/gemma-2-2b"\n'


@pytest.fixture
def project(tmp_path):
    (tmp_path / "lib").mkdir()
    for name, text in {"train.py": TRAIN, "lib/__init__.py": "", "lib/models.py": MODELS, "lib/names.py": NAMES}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def found(report):
    return sorted((v.code, v.severity.value, v.at.file.rpartition("/")[2], v.at.line) for v in report.violations)


EXPECTED = [("KB104", "warning", "models.py", 11), ("KB121", "warning", "models.py", 8), ("KB202", "error", "models.py", 11)]


def test_a_finding_stands_in_the_file_with_the_fault(project):
    report = kbitlint.check(str(project / "train.py"))

    assert found(report) == EXPECTED
    assert {v.fix.safety.value for v in report.violations} == {"display"}  # the fix of another file is that file's own


def test_a_folder_has_each_finding_once_with_the_fix_of_its_file(project):
    report = kbitlint.check(str(project))

    assert found(report) == EXPECTED
    assert [v.fix.safety.value for v in report.violations if v.code == "KB121"] == ["unsafe"]


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("import lib.models", "lib.models.load(4)"),
        ("import lib.models as m", "m.load(4)"),
        ("from lib import models", "models.load(4)"),
        ("from lib.models import *", "load(4)"),
        ("from lib.models import load as make", "make(4)"),
    ],
)
def test_every_form_of_an_import_is_followed(project, line, call):
    text = TRAIN.replace("from lib.models import load", line).replace("load(4)", call)
    (project / "train.py").write_text(text)

    assert [code for code, *_ in found(kbitlint.check(str(project / "train.py")))] == ["KB104", "KB121", "KB202"]


@pytest.mark.parametrize("folder", [".", "examples", "examples/deep"])
def test_the_package_of_a_src_layout_is_found_from_its_examples(project, folder):
    (project / "src").mkdir()
    (project / "lib").rename(project / "src" / "lib")
    (project / folder).mkdir(parents=True, exist_ok=True)
    script = (project / "train.py").rename(project / folder / "train.py")

    assert found(kbitlint.check(str(script))) == EXPECTED


def test_a_comment_in_the_imported_file_silences_there(project):
    (project / "lib" / "models.py").write_text(MODELS.replace("torch.float16)", "torch.float16)  # kbitlint: ignore[KB121]"))

    assert [code for code, *_ in found(kbitlint.check(str(project / "train.py")))] == ["KB104", "KB202"]


def test_the_main_block_of_an_imported_file_does_not_run(project):
    (project / "lib" / "models.py").write_text(MODELS + "\nif __name__ == '__main__':\n    load(8).merge_and_unload()\n")

    assert found(kbitlint.check(str(project / "train.py"))) == EXPECTED


def test_circles_and_files_that_are_no_python_end_nothing(project):
    (project / "lib" / "names.py").write_text("from .models import load\nfrom .broken import x\n" + NAMES)
    (project / "lib" / "broken.py").write_text("from peft import LoraConfig\ndef f(:\n")

    assert found(kbitlint.check(str(project / "train.py"))) == EXPECTED


def test_the_number_of_files_is_bounded(project, monkeypatch):
    monkeypatch.setattr(imported_files, "MAX_FILES", 1)

    assert [code for code, *_ in found(kbitlint.check(str(project / "train.py")))] == [
        "KB202"
    ]  # the name of the base is not known


def test_a_dataclass_of_another_file_gives_the_options_their_defaults(project):
    (project / "lib" / "names.py").write_text(
        "from dataclasses import dataclass\nfrom peft import LoraConfig\n\n@dataclass\nclass Options:\n    bits: int = 16\n"
    )
    (project / "train.py").write_text(
        "from lib.names import Options\nfrom transformers import AutoModelForCausalLM, BitsAndBytesConfig, HfArgumentParser\n"
        "(options,) = HfArgumentParser((Options,)).parse_args_into_dataclasses()\nextra = {}\nif options.bits == 8:\n"
        "    extra['quantization_config'] = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=['bridge'])\n"
        "model = AutoModelForCausalLM.from_pretrained('lab/base', **extra)\n"
    )

    assert found(kbitlint.check(str(project / "train.py"))) == [("KB523", "warning", "train.py", 6)]


def test_what_a_later_call_decides_in_another_file_is_no_info_of_this_one(project):
    text = MODELS.replace(', gradient_checkpointing_kwargs={"use_reentrant": False}', "")
    (project / "lib" / "models.py").write_text(text)

    assert "KB401" in {code for code, *_ in found(kbitlint.check(str(project / "lib" / "models.py")))}
    assert found(kbitlint.check(str(project))) == EXPECTED
