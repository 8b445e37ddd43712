from __future__ import annotations

import pytest

import kbitlint

CODE = "KB550"
LAUNCH = "# accelerate launch --config_file {} train.py\n"
HEAD = """\
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
accelerator = Accelerator()
model = AutoModelForCausalLM.from_pretrained("lab/base-1b")
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
"""
LOOP = """\
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
for batch in loader:
    accelerator.backward(model(**batch).loss)
    optimizer.step()
    optimizer.zero_grad()
"""
SAVE = "accelerator.unwrap_model(model).save_pretrained('out')\n"
ON_ONE = f"if accelerator.is_main_process:\n    {SAVE}"
TRAINER = "trainer = Trainer(model, TrainingArguments('o', deepspeed='zero3.json'), train_dataset=d)\ntrainer.train()\n"
ACCELERATE = "distributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: {}\nnum_processes: 4\n"


def found(folder, script):
    for stage in (2, 3):
        (folder / f"zero{stage}.yaml").write_text(ACCELERATE.format(stage))
        (folder / f"zero{stage}.json").write_text(f'{{"zero_optimization": {{"stage": {stage}}}}}')
    path = folder / "train.py"
    path.write_text(script)
    lines = script.splitlines()
    return [(v.severity.value, lines[v.at.line - 1].strip()) for v in kbitlint.check(str(path), select=CODE).violations]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        pytest.param(LAUNCH.format("zero3.yaml") + HEAD + LOOP + ON_ONE, SAVE.strip(), id="a loop, saved on one rank"),
        pytest.param(
            HEAD + TRAINER + "trainer.model.save_pretrained('out')\n", "trainer.model.save_pretrained('out')", id="Trainer"
        ),
    ],
)
def test_what_zero_3_has_partitioned_is_saved_empty(tmp_path, script, line):
    assert found(tmp_path, script) == [("error", line)]


GATHERED = SAVE.replace("'out'", "'out', state_dict=accelerator.get_state_dict(model)")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LAUNCH.format("zero3.yaml") + HEAD + LOOP + GATHERED, id="gathered"),
        pytest.param(LAUNCH.format("zero2.yaml") + HEAD + LOOP + SAVE, id="stage 2"),
        pytest.param(HEAD + LOOP + SAVE, id="no launch"),
        pytest.param(LAUNCH.format("zero3.yaml") + HEAD + SAVE + LOOP, id="saved before"),
        pytest.param(HEAD + TRAINER + "trainer.save_model('out')\n", id="Trainer's own save"),
        pytest.param(LAUNCH.format("zero3.yaml").replace("train.py", "other.py") + HEAD + LOOP + SAVE, id="another script"),
    ],
)
def test_look_alikes(tmp_path, script):
    assert found(tmp_path, script) == []
