"""KB655: LoRA adapters that require gradients and get only zeros, each against a real step."""

from __future__ import annotations

import pytest
import tiny
import torch
from script_cases import IMPORTS, LOADED, PREPARED, findings

LLAMA = LOADED.replace("org/base", "meta-llama/Llama-3.2-1B")
ATTACHED = "model = get_peft_model(model, LoraConfig(r=4, target_modules=['q_proj', 'v_proj']{}))\n"
NAMES = "for name, p in model.named_parameters():\n"
LOOP = (
    "model.train()\noptimizer = torch.optim.AdamW(model.parameters())\nfor batch in loader:\n"
    "    loss = model(**batch).loss\n    loss.backward()\n    optimizer.step()\n"
)
ONLY_A = "only lora_A trains, and its gradient is zero while lora_B is"
ZERO = "both halves of the adapters are zero, so the gradient of each is zero"
SCALE = "the scale of the adapters is 0, so no gradient reaches them"
DROPPED = "lora_dropout drops every input of the adapters, so no gradient reaches them"
TRAINER = "Trainer(model=model, args=TrainingArguments('out'), train_dataset=data).train()\n"


def said(change, further="", loop=LOOP):
    body = LLAMA + PREPARED + ATTACHED.format(further) + change + loop
    return [(severity, message) for severity, _, message in findings("KB655", body, imports=IMPORTS + "import peft\n")]


def learns(further=None, change=""):
    """Return whether a real step of a small model with such adapters gives any of them a gradient."""
    model = tiny.with_lora(
        tiny.prepared("llama"), target_modules=["q_proj", "v_proj"], **{"init_lora_weights": True, **(further or {})}
    )
    exec(change, {"model": model, "torch": torch})  # noqa: S102  # the tests' own code
    tiny.step(model)
    return any(p.grad is not None and bool(p.grad.any()) for p in model.parameters() if p.requires_grad)


KEEP_A = """\
def keep(m, word):
    for n, q in m.named_parameters():
        if word not in n:
            q.requires_grad = False
keep(model, 'lora_A')
"""
EITHER = """\
for name, p in model.named_parameters():
    if 'lora_A' in name:
        p.requires_grad = True
    else:
        p.requires_grad_(False)
"""
MUTE = """\
for module in model.modules():
    if hasattr(module, 'set_scale'):
        module.set_scale('default', 0)
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (NAMES + "    p.requires_grad = 'lora_A' in name\n", ONLY_A),
        (EITHER, ONLY_A),
        (NAMES + "    if name.endswith('lora_B.default.weight'):\n        p.requires_grad = False\n", ONLY_A),
        (KEEP_A, ONLY_A),
        (NAMES + "    if 'lora_' in name:\n        torch.nn.init.zeros_(p)\n", ZERO),
        (NAMES + "    if 'lora_A' in name:\n        p.data.zero_()\n", ZERO),
        (MUTE, SCALE),
    ],
)
def test_adapters_that_get_only_zeros(change, message):
    assert said(change) == [("error", message)]
    assert said(change, loop=TRAINER) == [("error", message)]
    assert not learns(change=change)


@pytest.mark.parametrize(
    ("further", "arguments", "message"),
    [(", lora_dropout=1.0", {"lora_dropout": 1.0}, DROPPED), (", lora_alpha=0", {"lora_alpha": 0}, SCALE)],
)
def test_a_config_whose_adapters_get_only_zeros(further, arguments, message):
    assert said("", further) == [("error", message)]
    assert not learns(arguments)


@pytest.mark.parametrize(
    ("change", "further"),
    [
        ("", ""),
        (NAMES + "    p.requires_grad = 'lora_B' in name\n", ""),
        (NAMES + "    p.requires_grad = 'lora_' in name\n", ""),
        (NAMES + "    if 'lora_B' in name:\n        p.data.fill_(0)\n", ""),
        (NAMES + "    p.requires_grad = 'lora_A' in name\n", ", init_lora_weights=False"),
        (NAMES + "    p.requires_grad = 'lora_A' in name and keep(p)\n", ""),
        (NAMES + "    if p.ndim == 2 and 'lora_B' in name:\n        p.requires_grad = False\n", ""),
        (MUTE.replace("0)", "2)"), ""),
        ("", ", lora_dropout=0.5"),
    ],
)
def test_look_alikes(change, further):
    assert said(change, further) == []


def test_what_trains_beside_the_adapters_makes_it_a_warning():
    assert said("", ", lora_dropout=1.0, modules_to_save=['lm_head']") == [("warning", DROPPED)]


def test_dropout_does_not_drop_in_eval_mode():
    assert said("", ", lora_dropout=1.0", loop=LOOP.replace("train()", "eval()")) == []


@pytest.mark.parametrize(
    ("trainer", "given", "told"),
    [("SFT", "", 1), ("DPO", "", 0), ("Reward", "", 0), ("DPO", ", disable_dropout=False", 1), ("ORPO", "", 0)],
)
def test_trainers_that_switch_dropout_off_drop_nothing(trainer, given, told):
    loop = f"from trl import {trainer}Config, {trainer}Trainer\nargs = {trainer}Config('out'{given})\n"
    loop += f"{trainer}Trainer(model=model, args=args, train_dataset=data).train()\n"

    assert said("", ", lora_dropout=1.0", loop) == [("error", DROPPED)] * told


def test_trainers_with_a_reference_adapter_train_the_active_one_again():
    assert said(KEEP_A, loop="from trl import DPOTrainer\nDPOTrainer(model=model, train_dataset=data).train()\n") == []
