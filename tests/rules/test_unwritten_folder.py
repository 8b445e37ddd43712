"""KB564: models that are loaded from a folder that holds the checkpoints of a Trainer."""

from __future__ import annotations

import peft
import pytest
import tiny
import transformers
from script_cases import findings

HEAD = """import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
OUT = "./out"
model = get_peft_model(AutoModelForCausalLM.from_pretrained("m"), LoraConfig(target_modules=["q_proj"]))
trainer = Trainer(model=model, args=TrainingArguments(output_dir=OUT), train_dataset=data)
"""
TRAIN = "trainer.train()\n"
LOAD = "model = AutoPeftModelForCausalLM.from_pretrained(OUT)\n"


def test_a_trainer_saves_no_model_into_its_folder(tmp_path):
    model = peft.get_peft_model(tiny.load("llama", kind="none"), peft.LoraConfig(target_modules=["q_proj"]))
    args = transformers.TrainingArguments(str(tmp_path), max_steps=1, save_steps=1, use_cpu=True, report_to="none")
    data = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8
    transformers.Trainer(model=model, args=args, train_dataset=data).train()

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        peft.PeftConfig.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (TRAIN + LOAD, 1),
        (TRAIN + "tokenizer.save_pretrained(OUT)\ntrainer.save_state()\n" + LOAD + "model.save_pretrained('merged')\n", 1),
        (TRAIN + "base = AutoModelForCausalLM.from_pretrained('m')\nmodel = PeftModel.from_pretrained(base, 'out')\n", 1),
        (TRAIN + LOAD.replace("OUT", "OUT + '/checkpoint-1'"), 0),
        (TRAIN + "trainer.save_model()\n" + LOAD, 0),
        (TRAIN + "trainer.model.save_pretrained(OUT)\n" + LOAD, 0),
        (TRAIN + "shutil.copytree('out/checkpoint-1', OUT)\n" + LOAD, 0),
        ("if args.train:\n    trainer.train()\n" + LOAD, 0),
        (TRAIN + "try:\n    " + LOAD + "except ValueError:\n    pass\n", 0),
        (LOAD + TRAIN, 0),
        (
            "def main():\n    trainer = Trainer(model=model, args=TrainingArguments(OUT))\n    trainer.train()\nmain()\n"
            + LOAD,
            0,
        ),
    ],
)
def test_a_load_from_the_folder_of_checkpoints(body, found):
    assert len(findings("KB564", body, imports=HEAD)) == found
