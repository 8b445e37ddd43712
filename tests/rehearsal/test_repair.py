"""``kbitlint rehearse --fix`` repairs the script where its text shows the cause, and rehearses what it made."""

from __future__ import annotations

import pytest

from kbitlint.errors import TargetError
from kbitlint.rehearsal.repair import repair
from kbitlint.rehearsal.run import Rehearsal

SCRIPT = """from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("facebook/opt-125m")
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
config = LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM", inference_mode={frozen})
model = get_peft_model(model, config)


def words(row):
    ids = tokenizer(row["text"])["input_ids"]
    return {{"input_ids": ids, "labels": ids}}


data = load_dataset("imdb", split="train").map(words, remove_columns=["text", "label"])
arguments = TrainingArguments(output_dir="out", per_device_train_batch_size=1, report_to="none")
trainer = Trainer(model=model, args=arguments, train_dataset=data)
trainer.train()
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train.py"
    path.write_text(SCRIPT.format(frozen=True))
    return path


@pytest.mark.usefixtures("forked")
def test_the_command_line_repairs_the_script_and_rehearses_it(run, file):
    before = run("rehearse", "train.py")
    fixed = run("rehearse", "--fix", "train.py")

    assert "nothing-trainable" in before.output
    assert file.read_text() == SCRIPT.format(frozen=False)
    assert "training reached at line 19" in " ".join(fixed.output.split())
    assert "fixed with 1 edit in 1 pass:" in fixed.output
    assert "+config = LoraConfig(" in fixed.output
    assert "nothing-trainable" not in fixed.output
    assert before.exit_code == 1


def test_a_module_is_not_the_users_to_change(file):
    with pytest.raises(TargetError, match="train: is a module: name its file to fix it"):
        repair(["python", "-m", "train"], Rehearsal(), {})
    assert file.read_text() == SCRIPT.format(frozen=True)
