"""KB538: AdaLoRA without a call that allocates its ranks."""

from __future__ import annotations

import inspect

import pytest
import transformers
from script_cases import LOADED, PREPARED, TRAINED, flagged_lines

ATTACHED = "model = get_peft_model(model, AdaLoraConfig(init_r=8, target_r=2, total_step=20, target_modules=['q_proj']))\n"
CALLBACK = """\
from transformers import TrainerCallback
class Allocate(TrainerCallback):
    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        model.base_model.update_and_allocate(state.global_step)
"""
USED = TRAINED.replace("train_dataset=data", "train_dataset=data, callbacks=[Allocate()]")
RECIPE = "from peft import AdaLoraConfig\n" + LOADED + PREPARED + ATTACHED


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        (RECIPE + TRAINED, True),
        (RECIPE + CALLBACK + TRAINED, True),
        (RECIPE + CALLBACK + USED, False),
        (RECIPE + "for batch in loader:\n    model(**batch).loss.backward()\n    model.update_and_allocate(step)\n", False),
        (RECIPE.replace("AdaLoraConfig(init_r=8, target_r=2, total_step=20, ", "LoraConfig(") + TRAINED, False),
    ],
)
def test_a_training_that_allocates_no_rank_is_reported(body, flagged):
    assert flagged_lines("KB538", body) == ([("warning", ATTACHED.strip())] if flagged else [])


def test_the_trainer_of_transformers_does_not_allocate():
    assert "update_and_allocate" not in inspect.getsource(transformers.Trainer)
