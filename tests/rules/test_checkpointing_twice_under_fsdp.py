from __future__ import annotations

import pytest
from script_cases import findings, fixed_text

BOTH = (
    "TrainingArguments('out', gradient_checkpointing=True, fsdp='full_shard', fsdp_config={'activation_checkpointing': True})\n"
)


def test_both_checkpoint_the_layers():
    assert findings("KB724", BOTH) == [
        ("error", BOTH.strip(), "the layers are checkpointed by FSDP and by the training arguments")
    ]


def test_the_fix_leaves_it_to_fsdp(tmp_path):
    assert fixed_text("KB724", BOTH, tmp_path) == BOTH.replace("gradient_checkpointing=True", "gradient_checkpointing=False")


@pytest.mark.parametrize(
    "script",
    [
        BOTH.replace("gradient_checkpointing=True", "gradient_checkpointing=False"),
        BOTH.replace(": True}", ": False}"),
        BOTH.replace("{'activation_checkpointing': True}", "config"),
        "TrainingArguments('out', gradient_checkpointing=True)\n",
    ],
)
def test_look_alikes(script):
    assert findings("KB724", script) == []
