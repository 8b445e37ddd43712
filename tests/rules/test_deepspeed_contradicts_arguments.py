from __future__ import annotations

import json

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from script_cases import ADAPTED, IMPORTS, LOADED, findings
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from kbitlint import check

CODE = "KB569"
MESSAGE = "the DeepSpeed configuration fixes {} at {}, and the arguments have {} {}: transformers raises a ValueError"
CONFIGS = [
    {"gradient_accumulation_steps": 4, "train_batch_size": "auto"},
    {"gradient_accumulation_steps": 8, "train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.5},
    {"optimizer": {"type": "AdamW", "params": {"lr": 3e-4, "betas": [0.9, 0.95], "eps": 1e-6, "weight_decay": 0.01}}},
    {"optimizer": {"params": {"lr": 1e-4, "betas": [0.9, 0.999], "eps": "auto", "weight_decay": 0}}},
    {"scheduler": {"params": {"warmup_min_lr": 5, "warmup_max_lr": 3e-4}}, "zero_optimization": {"stage": 2}},
    {"fp16": {"enabled": True, "loss_scale": 0}, "bf16": {"enabled": False}},
    {"fp16": {"enabled": "auto"}, "bf16": {"enabled": True}, "gradient_clipping": 1, "steps_per_print": 9},
    {"train_batch_size": 33},
    {"train_batch_size": 32},
]
ARGUMENTS = "per_device_train_batch_size=2, gradient_accumulation_steps=8, learning_rate=1e-4, bf16=True"


def script(deepspeed, arguments=ARGUMENTS, after=""):
    made = f"args = TrainingArguments('out', {arguments}, deepspeed={deepspeed})\n{after}"
    return LOADED + ADAPTED + made + "Trainer(model=model, args=args, train_dataset=data).train()\n"


def compared(config):
    """Return the keys that transformers finds different, for a number of ranks that fits if any does."""
    made = type("Config", (HfTrainerDeepSpeedConfig, HfDeepSpeedConfig), {})
    real = made.__new__(made)
    real.config, real.mismatches, real._dtype = config, [], None
    batch = config.get("train_batch_size")
    args = TrainingArguments(
        "out", per_device_train_batch_size=2, gradient_accumulation_steps=8, learning_rate=1e-4, bf16=True, use_cpu=True
    )
    ranks = batch // 16 if isinstance(batch, int) else 1
    shown = type("Args", (), {**vars(args), "world_size": ranks})
    real.trainer_config_process(shown)
    return [line.removeprefix("- ds ").partition("=")[0] for line in real.mismatches]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_keys_for_which_transformers_raises(config, tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps(config))
    path = tmp_path / "train.py"
    path.write_text(IMPORTS + script("'ds.json'"))

    found = [one.evidence["key"] for one in check(path).violations if one.code == CODE]

    assert sorted(found) == sorted(compared(json.loads(json.dumps(config))))


def test_a_dict_and_defaults():
    assert findings(CODE, script('{"gradient_accumulation_steps": 4}', "bf16=True")) == [
        (
            "error",
            "args = TrainingArguments('out', bf16=True, deepspeed={\"gradient_accumulation_steps\": 4})",
            MESSAGE.format("gradient_accumulation_steps", 4, "gradient_accumulation_steps", 1),
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        script("{'gradient_accumulation_steps': 4}", "gradient_accumulation_steps=steps"),
        script("{'gradient_accumulation_steps': 4}", "**given"),
        script("{'train_micro_batch_size_per_gpu': 4, 'train_batch_size': 7}", "auto_find_batch_size=True"),
        script("{'optimizer': {'params': {'lr': 2e-5}}}", "logging_steps=1").replace("TrainingArguments(", "SFTConfig("),
        script("{'gradient_accumulation_steps': steps}"),
        script("'elsewhere.json'"),
    ],
)
def test_look_alikes(text):
    assert findings(CODE, text) == []
