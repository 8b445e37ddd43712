"""KB541: biases that are trained in the reference too."""

from __future__ import annotations

import peft
import pytest
import torch
from script_cases import LOADED, fixed_text, flagged_lines
from torch import nn

TRAINER = "DPOTrainer(model=model, args=DPOConfig('out'), train_dataset=data, peft_config=LoraConfig(bias='all')).train()\n"
BODY = "from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer\n" + LOADED + TRAINER
ONLINE = BODY.replace("DPOTrainer(model=model, args=DPOConfig('out'", "GRPOTrainer(model=model, args=GRPOConfig('out'{}")


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        (BODY, True),
        (BODY.replace("'all'", "'lora_only'"), True),
        (BODY.replace("'all'", "'none'"), False),
        (BODY.replace("model=model, ", "model=model, ref_model=other, "), False),
        (BODY.replace("DPOTrainer(model", "SFTTrainer(model").replace("DPOConfig('out')", "SFTConfig('out')"), False),
        (ONLINE.replace("{}", ""), False),
        (ONLINE.replace("{}", ", beta=0.04"), True),
    ],
)
def test_trained_biases_without_a_reference_model_are_reported(body, flagged):
    assert [severity for severity, _ in flagged_lines("KB541", body)] == (["warning"] if flagged else [])


def test_the_fix_trains_no_biases(tmp_path):
    assert fixed_text("KB541", BODY, tmp_path) == BODY.replace("bias='all'", 'bias="none"')


def test_trained_biases_stay_when_adapters_are_off():
    base = nn.Sequential(nn.Linear(4, 4))
    before = base(torch.ones(1, 4))
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"], bias="all"))
    with torch.no_grad():
        model.base_model.model[0].base_layer.bias += 1
    with model.disable_adapter():
        off = model(torch.ones(1, 4))

    assert torch.allclose(off, before + 1)
