"""Operators and forwards that a step without weights has to answer as the real ones do."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch
import trace_cases
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from trl.trainer.utils import add_fused_lm_head

import kbitlint
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.trace.trace import trace


def outcome(model):
    """Return the first line of the error of a real step on the batch of the trace, or None."""
    model.train()
    try:
        loss_of(model(**training_batch(model, "cpu"))).backward()
    except (RuntimeError, IndexError) as error:
        return str(error).splitlines()[0]
    return None


@pytest.mark.parametrize(
    ("prepare", "refusals"),
    [(lambda model: model, set()), (prepare_model_for_kbit_training, {("KB102", "error")})],
    ids=["as loaded", "prepared"],
)
def test_a_sparse_delta_trains_and_fails_as_its_real_kernel_does(prepare, refusals):
    model = get_peft_model(prepare(tiny.load()), peft.ShiraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    report = kbitlint.check(model, select=["KB102", "KB303"], context=trace_cases.NO_AUTOCAST)

    assert {(v.code, v.severity.value) for v in report.violations} == refusals
    assert [skip for skip in report.skips if not skip.code] == []
    assert ("same dtype" in (outcome(model) or "")) == bool(refusals)


def test_the_memory_of_a_sparse_delta_is_counted():
    model = get_peft_model(tiny.load(), peft.ShiraConfig(r=4, target_modules=["q_proj", "v_proj"]))

    (state, *_) = kbitlint.memory(model).states
    assert all(step.peak > 0 for step in state.steps.values())


@pytest.mark.parametrize(("family", "fails"), [("opt", True), ("llama", False)])
def test_a_mask_of_another_shape_raises_as_torch_does(family, fails):
    """OPT flattens what enters its ``fc1``, and aLoRA selects rows of sequences."""
    target = "fc1" if family == "opt" else "up_proj"
    config = LoraConfig(r=4, target_modules=[target], alora_invocation_tokens=[5, 6], task_type="CAUSAL_LM")
    model = get_peft_model(tiny.load(family), config)
    error = outcome(model)

    found = trace_cases.trace_findings(model, "KB304")

    assert (error is not None) == fails
    assert [message for _, _, message in found] == ([f"the training step raises IndexError: {error}"] if fails else [])


def test_a_tied_head_that_trl_reads_and_never_calls_is_healthy():
    model = tiny.with_lora(tiny.load("llama (tied)", llm_int8_skip_modules=["gate_proj"]), target_modules=["q_proj"])

    assert [severity for _, severity, _ in trace_cases.trace_findings(model, "KB506")] == ["error"]
    with pytest.raises(AssertionError):
        outcome(model)
    add_fused_lm_head(model.get_base_model())
    assert trace_cases.trace_findings(model, "KB506") == []
    assert outcome(model) is None


def test_a_packed_head_that_trl_reads_fails():
    model = tiny.with_lora(tiny.load(llm_int8_skip_modules=["gate_proj"]), target_modules=["q_proj"])

    assert trace_cases.trace_findings(model, "KB503") == []
    assert outcome(model) is None
    add_fused_lm_head(model.get_base_model())
    assert [(path, severity) for path, severity, _ in trace_cases.trace_findings(model, "KB503")] == [("lm_head", "error")]
    assert "shapes cannot be multiplied" in outcome(model)


def test_a_bias_that_bitsandbytes_recasts_is_told_and_is_recast_for_real():
    model = prepare_model_for_kbit_training(tiny.load("gpt2 (Conv1D)"), use_gradient_checkpointing=False)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["c_attn"], bias="all"))
    before = {name: one.dtype for name, one in model.named_parameters() if one.requires_grad}
    traced = trace(model, trace_cases.NO_AUTOCAST)

    assert {name: one.dtype for name, one in model.named_parameters() if one.requires_grad} == before
    assert outcome(model) is None
    recast = {
        n.removeprefix("base_model.model.") for n, one in model.named_parameters() if before.get(n, one.dtype) != one.dtype
    }
    assert {path for path, *_ in traced.recast} == recast
    assert {dtypes for _, *dtypes in map(tuple, traced.recast) for dtypes in [tuple(dtypes)]} == {("float32", "bfloat16")}
    assert len(recast) == 2 * 4
    assert torch.isfinite(model.get_base_model().lm_head.weight).all()


def test_a_head_that_lacks_what_trl_reads_fails():
    class CastOutputToFloat(torch.nn.Sequential):
        def forward(self, hidden):
            return super().forward(hidden).float()

    model = tiny.with_lora(tiny.load(), target_modules=["q_proj"])
    base = model.get_base_model()
    base.lm_head = CastOutputToFloat(base.lm_head)

    assert trace_cases.trace_findings(model, "KB304") == []
    add_fused_lm_head(base)
    message = "the training step raises AttributeError: 'CastOutputToFloat' object has no attribute 'weight'"
    assert [text for *_, text in trace_cases.trace_findings(model, "KB304")] == [message]
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        outcome(model)


def test_an_alora_acts_on_no_token_of_a_class_that_looks_for_none():
    config = LoraConfig(r=4, target_modules=["q", "v"], alora_invocation_tokens=[5, 6], task_type="SEQ_2_SEQ_LM")
    model = get_peft_model(tiny.load("t5 (encoder-decoder)"), config)

    told = "invocation tokens are looked for by PEFT's model for causal LM only, so the adapter acts on no token"
    assert [(severity, text) for _, severity, text in trace_cases.trace_findings(model, "KB305")] == [("error", told)]
    assert outcome(model) is None
    assert not any(one.grad.any() for one in model.parameters() if one.grad is not None)
