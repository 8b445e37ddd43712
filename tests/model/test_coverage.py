"""The share of a model that its adapters reach, as the report's head says it."""

from __future__ import annotations

import pytest
import tiny

import kbitlint

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# elements of a layer of the tiny Llama: q and o are 64 x 64, k and v 64 x 32, the others 64 x 128
QUERY, KEY, MLP = 64 * 64, 64 * 32, 64 * 128
TOTAL = 2 * QUERY + 2 * KEY + 3 * MLP


def summary(**lora):
    return kbitlint.check(tiny.with_lora(tiny.prepared(), **lora), trace=False, select="KB202").summary


@pytest.mark.parametrize(
    ("targets", "share", "left"),
    [
        (["q_proj"], QUERY / TOTAL, ", none of gate_proj, up_proj, down_proj, o_proj, k_proj, ..."),
        (["q_proj", "v_proj"], (QUERY + KEY) / TOTAL, ", none of gate_proj, up_proj, down_proj, o_proj, k_proj"),
        (["q_proj", "k_proj", "v_proj", "o_proj"], 2 * (QUERY + KEY) / TOTAL, ", none of gate_proj, up_proj, down_proj"),
    ],
)
def test_the_report_says_which_share_has_an_adapter_and_what_has_none(targets, share, left):
    assert summary(target_modules=targets).endswith(f" layers, {share:.0%} of the linear weights have an adapter{left}")


def test_layers_left_out_of_a_kind_count_in_the_share_alone():
    said = summary(target_modules=ALL, layers_to_transform=[0])

    assert said.endswith("LoRA r=4 on 7 layers, 50% of the linear weights have an adapter")


@pytest.mark.parametrize("targets", [ALL, "all-linear"])
def test_a_covered_model_needs_no_words(targets):
    assert summary(target_modules=targets).endswith("LoRA r=4 on 14 layers")


def test_the_share_of_an_unquantized_model_is_that_of_its_matrices():
    model = tiny.with_lora(tiny.load(kind="none"), target_modules=["q_proj"])

    said = kbitlint.check(model, trace=False, select="KB202").summary

    assert f"{QUERY / TOTAL:.0%} of the linear weights have an adapter, none of gate_proj" in said


def test_prompts_reach_no_matrix_and_need_no_words():
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(tiny.prepared(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))

    assert "have an adapter" not in kbitlint.check(model, trace=False, select="KB202").summary
