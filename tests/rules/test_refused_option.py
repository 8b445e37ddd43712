"""Options of a launch that the script's parser refuses."""

from __future__ import annotations

import argparse
import dataclasses
import sys

import pytest
import transformers

from kbitlint.api import check

CODE = "KB670"
SCRIPT = """\
import argparse
from dataclasses import dataclass, field
from transformers import AutoModelForCausalLM, HfArgumentParser, Seq2SeqTrainingArguments, Trainer, TrainingArguments
@dataclass
class Own:
    base: str = field(default="m")
    packing: bool = True
{}
model = AutoModelForCausalLM.from_pretrained("m", load_in_4bit=True)
Trainer(model=model, args=args, train_dataset=data).train()
"""
FIELDS = "parser = HfArgumentParser((Own, TrainingArguments))\nown, args = parser.parse_args_into_dataclasses({})"
ARGPARSE = (
    "parser = argparse.ArgumentParser(description='a')\nparser.add_argument('-l', '--lr', type=float)\nargs = parser.{}()\n"
)


def found(folder, code, command, name="run.sh", pins=""):
    (folder / "train.py").write_text(SCRIPT.format(code))
    (folder / name).write_text(f"set -e\n{command}\n")
    (folder / "requirements.txt").write_text(pins)
    return [(one.severity.value, one.at.file, one.at.line, one.message) for one in check(folder, select=[CODE]).violations]


REFUSES = "HfArgumentParser raises a ValueError: some specified arguments are not used"


@pytest.mark.parametrize(
    ("code", "command", "pins", "result"),
    [
        (
            FIELDS.format(""),
            "python train.py --base x \\\n  --warmup_ratio 0.03 --output_dir o",
            "transformers==5.23.0\n",
            [("error", "run.sh", 3, f"the script has no option --warmup_ratio (since transformers 5.16): {REFUSES}")],
        ),
        (
            FIELDS.format(""),
            "accelerate launch ./train.py --use_lora=1 --bases x",
            "",
            [("error", "run.sh", 2, f"the script has no option --bases, --use_lora: {REFUSES}")],
        ),
        (
            ARGPARSE.format("parse_args"),
            "python train.py --lr 1 --epochs 3 | tee --append log",
            "",
            [
                (
                    "error",
                    "run.sh",
                    2,
                    "the script has no option --epochs: ArgumentParser ends the script: unrecognized arguments",
                )
            ],
        ),
    ],
)
def test_options_that_no_field_has(tmp_path, code, command, pins, result):
    assert found(tmp_path, code, command, pins=pins) == result


@pytest.mark.parametrize(
    ("code", "command", "name", "pins"),
    [
        (FIELDS.format(""), "python train.py --warmup_ratio 0.03", "run.sh", "transformers==4.57.1\n"),
        (FIELDS.format(""), "python train.py --no-packing --per-device-train-batch-size 1 --lr_sched cosine", "run.sh", ""),
        (FIELDS.format(""), "python other/train.py --epochs 3", "README.md", ""),
        (FIELDS.format("return_remaining_strings=True"), "python train.py --epochs 3", "run.sh", ""),
        (FIELDS.format("").replace("Own,", "Own, Unknown,"), "python train.py --epochs 3", "run.sh", ""),
        (ARGPARSE.format("parse_known_args"), "python train.py --epochs 3", "run.sh", ""),
        (ARGPARSE.format("parse_args") + "add(parser)\n", "python train.py --epochs 3", "run.sh", ""),
        (ARGPARSE.format("parse_args"), "python train.py -l 1 # --epochs 3", "run.sh", ""),
    ],
)
def test_look_alikes(tmp_path, code, command, name, pins):
    assert found(tmp_path, code, command, name, pins) == []


def test_the_parsers_refuse_an_option_that_no_field_has(monkeypatch):
    own = dataclasses.make_dataclass("Own", [("base", str, "m")])
    monkeypatch.setattr(sys, "argv", ["train.py", "--output_dir", "o", "--warmup_ratio", "0.03"])

    with pytest.raises(ValueError, match=r"not used by the HfArgumentParser: \['--warmup_ratio', '0.03'\]"):
        transformers.HfArgumentParser((own, transformers.TrainingArguments)).parse_args_into_dataclasses()
    with pytest.raises(SystemExit):
        argparse.ArgumentParser().parse_args()
