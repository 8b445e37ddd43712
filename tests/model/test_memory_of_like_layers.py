"""A step through three and four blocks of a stack tells the bytes of any number: compared with whole steps."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch

import kbitlint
from kbitlint.model.memory import stacks, step_memory, traced_step
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import Loss, StepPlan

CONTEXT = kbitlint.TrainingContext(autocast_dtype="float32", batch_size=2, seq_len=48)
#: enough for five blocks of two layers, one of which checkpoints
LAYERS = 11
#: names of the number of layers in configs
COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")


def deep(family, count=LAYERS):
    """Return a twin of a tiny model with more layers, and with LoRA."""
    import transformers

    cls, config = tiny.FAMILIES[family]
    config = config()
    told = config.to_dict()
    layers = {name: count for name in COUNTS if name in told}
    again = {name: value for name, value in told.items() if name not in ("layer_types", "mlp_only_layers")} | layers
    config = type(config)(**again)
    with torch.device("meta"):
        model = getattr(transformers, cls)(config)
        model.requires_grad_(requires_grad=False)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear"))
    return twin_of(adapted)


FAMILIES = [
    "llama",
    "gemma3 (1 + weight)",
    "t5 (encoder-decoder)",
    *(
        pytest.param(family, marks=pytest.mark.slow)
        for family in (
            "gpt2 (Conv1D)",
            "gpt_neox (fused QKV, LayerNorm)",
            "opt",
            "bart (encoder-decoder)",
            "qwen3_moe (MoE, q and k norms)",
        )
    ),
]


@pytest.mark.parametrize("stride", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_short_step_tells_the_bytes_of_a_whole_one(family, stride):
    twin = deep(family)
    step_memory._set_checkpointing(twin, stride)  # the mode of this step
    found = stacks.repeated(twin)
    short = traced_step.traced_step(twin, CONTEXT, StepPlan())  # the way of measure()
    whole = traced_step.whole_step(twin, CONTEXT, StepPlan())  # the way for other stacks

    assert [stack.blocks * stack.period + stack.start <= LAYERS for stack in found] == [True] * len(found)
    assert found or family.startswith("gemma3")  # its sliding and full layers need more of them to repeat
    assert (short.saved, short.logits) == (whole.saved, whole.logits)
    assert short.peak == whole.peak


def test_a_stack_of_two_kinds_repeats_by_its_period():
    twin = deep("llama", 11)
    for number, layer in enumerate(twin.base_model.model.model.layers):
        layer.kind = "full" if number % 2 else "sliding"
    (stack,) = stacks.repeated(twin)

    assert (stack.start, stack.period, stack.blocks) == (0, 2, 5)


def test_layers_that_differ_are_run_as_they_are():
    twin = deep("llama")
    for number, layer in enumerate(twin.base_model.model.model.layers):
        layer.mlp.gate_proj.lora_A["default"].weight.requires_grad_(number % 4 == 0)
        layer.self_attn.some_setting = float(number)

    assert stacks.repeated(twin) == ()


def test_the_twin_is_whole_after_a_short_step():
    twin = deep("llama")
    config = twin.base_model.model.config
    before = [name for name, _ in twin.named_modules()]
    traced_step.traced_step(twin, CONTEXT, StepPlan(loss=Loss.KEPT))  # see above

    assert [name for name, _ in twin.named_modules()] == before
    assert config.num_hidden_layers == LAYERS
