from __future__ import annotations

import pytest
import tiny
from script_cases import findings, fixed_text

import kbitlint
from kbitlint.context import Checkpointing, Strategy, TrainingContext

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


WRAPPED = """\
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model.gradient_checkpointing_enable()
apply_activation_checkpointing(model, check_fn=choose)
"""


def test_wrappers_around_layers_that_checkpoint_cost_time():
    assert findings("KB724", WRAPPED) == [
        (
            "warning",
            "apply_activation_checkpointing(model, check_fn=choose)",
            "the layers are checkpointed by the model and by activation wrappers",
        )
    ]
    assert findings("KB724", WRAPPED.replace("model.gradient_checkpointing_enable()\n", "")) == []


def found(model, **context):
    context = TrainingContext(**context)
    report = kbitlint.check(model, select="KB724", trace=False, context=context)
    return [(v.severity.value, v.message, v.evidence) for v in report.violations]


def test_a_model_that_checkpoints_under_fsdp_s_checkpoints_costs_time_and_trainer_refuses_both():
    model = tiny.prepared()
    fsdp = {"strategy": Strategy.FSDP2, "fsdp_checkpointing": True}
    loop = {"gradient_checkpointing": Checkpointing(enabled=True), "sets_training_mode": True}
    by = "the layers are checkpointed by FSDP and by the {}"

    assert found(model, **fsdp) == [("warning", by.format("model"), {"layers": 2, "training_arguments": False})]
    assert found(model, **fsdp, **loop) == [
        ("error", by.format("training arguments"), {"layers": 2, "training_arguments": True})
    ]
    assert found(model, **{**fsdp, "strategy": Strategy.DDP}) == found(model, strategy=Strategy.FSDP2) == []
