from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, get_peft_model
from script_cases import PREPARED, TRAINED, findings


def loop(condition, head="task_type='SEQ_CLS'", then="param.requires_grad = False"):
    load = "model = AutoModelForSequenceClassification.from_pretrained('org/base', quantization_config=bnb, num_labels=2)\n"
    attach = f"model = get_peft_model(model, LoraConfig(r=8, target_modules='all-linear', {head}))\n"
    inside = f"    if {condition}:\n        {then}\n" if condition else f"    {then}\n"
    imported = "from transformers import AutoModelForSequenceClassification\nbnb = BitsAndBytesConfig(load_in_8bit=True)\n"
    return imported + load + PREPARED + attach + "for name, param in model.named_parameters():\n" + inside


FREEZE, METHOD = "param.requires_grad = False", "param.requires_grad_(False)"
THAW = "for n, p in model.named_parameters():\n    if 'score' in n:\n        p.requires_grad = True\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (loop("'lora_' not in name") + TRAINED, FREEZE),
        (loop("not ('lora_A' in name or 'lora_B' in name)") + TRAINED, FREEZE),
        (loop("'lora_' in name", then=f"pass\n    else:\n        {METHOD}") + TRAINED, METHOD),
        (loop("", then="param.requires_grad = 'lora_' in name") + TRAINED, "param.requires_grad = 'lora_' in name"),
        (loop("", then="param.requires_grad = True if 'lora' in name else False") + TRAINED,
         "param.requires_grad = True if 'lora' in name else False"),
        (loop("'lora' not in name", "modules_to_save=['score']") + TRAINED, FREEZE),
        (loop("'lora_' not in name and 'modules_to_save' not in name") + TRAINED, None),
        (loop("'lora_' not in name and 'score' not in name", "modules_to_save=['score']") + TRAINED, None),
        (loop("'lora_' not in name and 'score' not in name") + TRAINED, None),
        (loop("'lora_' not in name", "task_type='CAUSAL_LM'") + TRAINED, None),
        (loop("wanted(name)") + TRAINED, None),
        (loop("'lora_' in name", then="param.requires_grad = True") + TRAINED, None),
        (loop("'lora_' not in name"), None),
        (loop("'lora_' not in name") + THAW + TRAINED, None),
    ],
)  # fmt: skip
def test_a_loop_that_freezes_by_name_freezes_the_trained_copy(body, line):
    assert [where for _, where, _ in findings("KB206", body)] == ([line] if line else [])


def test_the_copy_is_frozen_by_such_a_loop():
    model = get_peft_model(tiny.load("llama (classifier)"), LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS"))
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.requires_grad = False

    assert [name for name, parameter in model.named_parameters() if "score" in name and parameter.requires_grad] == []
    assert "base_model.model.score.modules_to_save.default.weight" in dict(model.named_parameters())
