"""KB542: checkpointing that does not repeat the dropout mask."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch
from script_cases import LOADED, PREPARED, TRAINED, fixed_text, flagged_lines

KWARGS = PREPARED.replace("False}", 'False, "preserve_rng_state": False}')
ATTACHED = "model = get_peft_model(model, LoraConfig(lora_dropout=0.3, target_modules=['q_proj']))\n"
BODY = LOADED + KWARGS + ATTACHED + TRAINED


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        (BODY, True),
        (BODY.replace("lora_dropout=0.3", "lora_dropout=0"), False),
        (BODY.replace("lora_dropout=0.3, ", ""), False),
        (BODY.replace('"preserve_rng_state": False', '"preserve_rng_state": True'), False),
        (LOADED + PREPARED + ATTACHED + TRAINED, False),
    ],
)
def test_dropout_that_is_not_repeated_is_reported(body, flagged):
    assert flagged_lines("KB542", body) == ([("error", KWARGS.strip())] if flagged else [])


def test_the_fix_repeats_the_mask(tmp_path):
    assert fixed_text("KB542", BODY, tmp_path) == BODY.replace('"preserve_rng_state": False', '"preserve_rng_state": True')


def test_the_gradients_are_those_of_another_mask():
    def gradients(*, preserve):
        torch.manual_seed(0)
        kwargs = {"use_reentrant": False, "preserve_rng_state": preserve}
        model = peft.prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs=kwargs)
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.3)).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        torch.manual_seed(1)
        tokens = torch.arange(2, 34)[None]
        model(input_ids=tokens, labels=tokens).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    right, wrong = gradients(preserve=True), gradients(preserve=False)

    assert torch.cosine_similarity(right, wrong, dim=0) < 0.95
    assert torch.equal(right, gradients(preserve=True))
