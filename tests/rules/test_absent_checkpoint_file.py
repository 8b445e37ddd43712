from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from script_cases import LOADED, NEWEST, RECIPE, TRAINED, findings
from transformers import Trainer, TrainerCallback, TrainingArguments

CODE = "KB651"
TAKE = "os.remove(os.path.join(folder, 'pytorch_model.bin'))"
CALLBACK = f"""\
from transformers import TrainerCallback
class AdapterOnly(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        folder = os.path.join(args.output_dir, f'checkpoint-{{state.global_step}}')
        {TAKE}
"""
USED = RECIPE.replace("train_dataset=data", "train_dataset=data, callbacks=[AdapterOnly()]")
TOLD = "os.remove needs pytorch_model.bin, which Trainer does not write for a PeftModel: a FileNotFoundError"


def test_a_callback_that_deletes_a_whole_model():
    assert findings(CODE, CALLBACK + USED) == [("error", TAKE, TOLD)]


@pytest.mark.parametrize(
    "use",
    [
        "os.unlink(f'{folder}/model.safetensors')",
        "weights = torch.load(os.path.join(folder, 'pytorch_model.bin'))",
        "shutil.move(os.path.join(folder, 'config.json'), 'model.safetensors')",
        "path = os.path.join(folder, 'pytorch_model.bin')\n        os.remove(path)",
    ],
)
def test_each_call_that_needs_its_file(use):
    assert [severity for severity, _, _ in findings(CODE, CALLBACK.replace(TAKE, use) + USED)] == ["error"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(CALLBACK.replace(TAKE, f"if os.path.exists(folder):\n            {TAKE}") + USED, id="asked before"),
        pytest.param(CALLBACK.replace("pytorch_model.bin", "optimizer.pt") + USED, id="a file that Trainer writes"),
        pytest.param(CALLBACK + RECIPE, id="not used"),
        pytest.param(CALLBACK + LOADED.replace(", quantization_config=bnb", "") + TRAINED, id="whole"),
        pytest.param(
            CALLBACK.replace(TAKE, f"try:\n            {TAKE}\n        except OSError:\n            pass") + USED, id="try"
        ),
    ],
)
def test_look_alikes(script):
    assert findings(CODE, script) == []


def test_an_old_trainer_writes_the_whole_model():
    assert findings(CODE, CALLBACK + USED, versions={**NEWEST, "transformers": "4.29.2"}) == []


class _AdapterOnly(TrainerCallback):
    def on_save(self, args, state, *_, **__):
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "pytorch_model.bin").unlink()


def test_a_real_training_stops_at_the_first_save(tmp_path):
    rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 2
    how = TrainingArguments(str(tmp_path), max_steps=1, save_steps=1, use_cpu=True, report_to="none", disable_tqdm=True)
    trainer = Trainer(tiny.with_lora(tiny.load(kind="none")), how, train_dataset=rows, callbacks=[_AdapterOnly()])

    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin"):
        trainer.train()
