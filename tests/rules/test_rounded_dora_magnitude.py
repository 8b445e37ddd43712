"""KB542: magnitudes of DoRA that never change."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch
from script_cases import LOADED, PREPARED, TRAINED, fixed_text, flagged_lines

ATTACHED = "model = get_peft_model(model, LoraConfig(use_dora=True, target_modules=['q_proj']), autocast_adapter_dtype=False)\n"
BODY = LOADED + PREPARED + ATTACHED + TRAINED


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        (BODY, True),
        (BODY.replace("use_dora=True, ", ""), False),
        (BODY.replace(", autocast_adapter_dtype=False", ""), False),
        (BODY.replace("autocast_adapter_dtype=False", "autocast_adapter_dtype=True"), False),
        (BODY.replace("bnb, dtype=torch.bfloat16", "bnb, dtype=torch.float32"), False),
        (BODY.replace("load_in_4bit", "load_in_8bit"), False),
    ],
)
def test_magnitudes_in_bfloat16_are_reported(body, flagged):
    assert flagged_lines("KB542", body) == ([("warning", ATTACHED.strip())] if flagged else [])


def test_the_fix_leaves_them_float32(tmp_path):
    assert fixed_text("KB542", BODY, tmp_path) == BODY.replace(", autocast_adapter_dtype=False", "")


@pytest.mark.parametrize("autocast", [True, False])
def test_updates_of_a_usual_learning_rate_round_away_in_bfloat16(autocast):
    config = peft.LoraConfig(use_dora=True, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(tiny.load(), config, autocast_adapter_dtype=autocast).train()
    magnitudes = [p for name, p in model.named_parameters() if "magnitude" in name]
    before = [p.detach().clone() for p in magnitudes]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, weight_decay=0)
    tokens = torch.arange(2, 34)[None]
    for _ in range(5):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    still = torch.cat([(p == old).flatten() for p, old in zip(magnitudes, before, strict=True)]).float().mean()

    assert {p.dtype for p in magnitudes} == {torch.float32 if autocast else torch.bfloat16}
    assert (still < 0.05) if autocast else (still > 0.9)
