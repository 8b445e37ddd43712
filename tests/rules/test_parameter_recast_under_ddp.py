from __future__ import annotations

import tiny
import trace_cases
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

import kbitlint
from kbitlint.context import Strategy, TrainingContext

CODE = "KB725"
# what really happens under DDP is held against this rule in tests/integrations/test_ranks.py


def ddp(**further):
    return TrainingContext(**{"autocast_dtype": "float32", "strategy": Strategy.DDP, "find_unused_parameters": False} | further)


def with_biases(bias="all", compute=None):
    model = tiny.load("gpt2 (Conv1D)", compute=compute)
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["c_attn"], bias=bias))


def test_each_float32_bias_of_a_layer_that_computes_in_bfloat16_is_reported():
    model, message = with_biases("lora_only"), "the first step makes the trainable float32 parameter bfloat16"
    told = [
        (f"transformer.h.{layer}.attn.c_attn.base_layer.bias", f"{message}, and DDP no longer averages its gradient")
        for layer in (0, 1)
    ]

    cases = {
        ddp(): "error",
        ddp(find_unused_parameters=True): "warning",
        ddp(find_unused_parameters=True, world_size=2): "error",
        ddp(static_graph=True): "warning",
    }
    for context, severity in cases.items():
        found = trace_cases.trace_findings(model, CODE, context)
        assert found == [(path, severity, text) for path, text in told]


def test_frozen_biases_and_those_of_the_computation_s_dtype_are_fine():
    assert trace_cases.trace_findings(with_biases("none"), CODE, ddp()) == []
    model = get_peft_model(tiny.load("gpt2 (Conv1D)"), LoraConfig(r=4, target_modules=["c_attn"], bias="all"))
    assert trace_cases.trace_findings(model, CODE, ddp()) == []


def test_on_one_gpu_a_recast_is_no_fault():
    assert trace_cases.trace_findings(with_biases(), CODE, ddp(strategy=Strategy.SINGLE)) == []


def test_without_a_strategy_the_rule_is_skipped_and_says_why():
    report = kbitlint.check(with_biases(), select=CODE)

    assert [skip.reason for skip in report.skips] == ["how ranks share the model is not known (--training)"]
