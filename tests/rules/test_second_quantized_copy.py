"""KB539: a second copy of the base as the reference."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch
from script_cases import LOADED, flagged_lines

COPY = "ref = AutoModelForCausalLM.from_pretrained('org/base', quantization_config=bnb, dtype=torch.bfloat16)\n"
TRAINER = (
    "DPOTrainer(model=model, ref_model=ref, args=DPOConfig('out'), train_dataset=data, peft_config=LoraConfig()).train()\n"
)
BODY = "from trl import DPOConfig, DPOTrainer\n" + LOADED + COPY + TRAINER


@pytest.mark.parametrize(
    ("body", "flagged"),
    [
        (BODY, True),
        (BODY.replace("ref_model=ref", "ref_model=None"), False),
        (BODY.replace(COPY, COPY.replace("org/base", "org/other")), False),
        (BODY.replace(COPY, "ref = AutoModelForCausalLM.from_pretrained('org/base')\n"), True),
        (BODY.replace(", peft_config=LoraConfig()", ""), False),
        (BODY.replace("ref_model=ref", "ref_model=model"), False),
    ],
)  # fmt: skip
def test_a_copy_of_the_same_base_is_reported(body, flagged):
    assert flagged_lines("KB539", body) == ([("warning", TRAINER.strip())] if flagged else [])


def test_the_model_without_adapters_gives_the_logits_of_the_copy():
    model, copy = peft.get_peft_model(tiny.load(), peft.LoraConfig(target_modules=["q_proj"])), tiny.load()
    torch.nn.init.normal_(next(p for name, p in model.named_parameters() if "lora_B" in name))
    tokens = torch.arange(8)[None]
    with torch.no_grad(), model.disable_adapter():
        reference = model(tokens).logits

    assert torch.allclose(reference, copy(tokens).logits, atol=0.01)
    assert not torch.allclose(model(tokens).logits, reference, atol=0.01)
