from __future__ import annotations

import pytest
import tiny
import torch
import trace_cases
import transformers
from script_cases import ADAPTED, LOADED, PREPARED, findings

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB102"
HEAD = ("lm_head", "error", "mm refuses float32 and bfloat16")


def test_float32_norms_before_a_half_precision_head_are_an_error_where_the_real_step_raises():
    model = trace_cases.bare_norms()

    assert trace_cases.trace_findings(model, CODE) == [HEAD]
    assert "same dtype" in tiny.step(model).error


def test_the_fix_lets_the_norms_give_back_what_came_in():
    model = trace_cases.bare_norms()
    (violation,) = trace_cases.violations(model, CODE)

    assert (violation.fix.title, violation.fix.safety.value) == ("let float32 norms give back the dtype that came in", "safe")
    assert [edit.path for edit in violation.fix.edits] == [
        "model.layers.0.input_layernorm",
        "model.layers.0.post_attention_layernorm",
        "model.layers.1.input_layernorm",
        "model.layers.1.post_attention_layernorm",
        "model.norm",
    ]
    kbitlint.fix(model, context=trace_cases.NO_AUTOCAST)
    assert trace_cases.trace_findings(model, CODE) == []
    assert tiny.step(model).trains


def test_where_it_is_not_known_whether_the_loop_opens_an_autocast_region_it_is_a_warning():
    message = "mm refuses float32 and bfloat16 outside an autocast region; in one it runs"

    assert trace_cases.trace_findings(trace_cases.bare_norms(), CODE, TrainingContext()) == [("lm_head", "warning", message)]


def test_a_mismatch_that_autocast_absorbs_is_no_violation():
    assert trace_cases.trace_findings(trace_cases.bare_norms(), CODE, TrainingContext(autocast_dtype="bfloat16")) == []


def test_a_mismatch_that_autocast_does_not_absorb_is_an_error_in_any_loop():
    import torch

    model = trace_cases.adapted()
    hidden = torch.zeros(1, dtype=torch.float16)
    tiny.adapters_base(model).model.norm.register_forward_hook(
        lambda module, args, output: output.index_put((torch.tensor([0]),), hidden)
    )

    assert [severity for _, severity, _ in trace_cases.trace_findings(model, CODE, TrainingContext())] == ["error"]
    assert tiny.step(model).error is not None


def test_a_half_precision_model_and_a_float32_model_are_clean():
    import torch

    assert trace_cases.trace_findings(trace_cases.adapted(), CODE) == []
    assert trace_cases.trace_findings(tiny.with_lora(tiny.load(dtype=torch.float32, compute=torch.float32)), CODE) == []


def test_what_the_cpu_takes_and_cuda_refuses_is_told_for_the_device_at_hand():
    model = trace_cases.bare_norms("opt")

    assert trace_cases.trace_findings(model, CODE) == []
    assert tiny.step(model).trains


def test_a_mismatch_without_a_norm_to_blame_is_bridged_in_float32():
    import torch

    import kbitlint

    model = trace_cases.adapted()
    tiny.adapters_base(model).lm_head.weight.data = tiny.adapters_base(model).lm_head.weight.data.to(torch.float16)
    (violation,) = trace_cases.violations(model, CODE)

    assert (violation.at.path, violation.evidence["dtypes"]) == ("lm_head", ["bfloat16", "float16"])
    assert [(edit.kind, edit.path, edit.adds_bytes) for edit in violation.fix.edits] == [("float32-module", "lm_head", 32_768)]
    assert tiny.step(model).error is not None
    kbitlint.fix(model, select=CODE)
    assert tiny.step(model).trains


def test_a_mismatch_in_the_backward_pass_says_so():
    import torch

    class Mixed(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, value):
            return value * 1

        @staticmethod
        def backward(_ctx, gradient):
            square = torch.ones(gradient.shape[-1], gradient.shape[-1], dtype=gradient.dtype)
            return (gradient.float() @ square).to(gradient.dtype)

    model = trace_cases.adapted()
    tiny.adapters_base(model).model.norm.register_forward_hook(lambda module, args, output: Mixed.apply(output))
    (violation,) = trace_cases.violations(model, CODE)

    assert violation.message == "the backward pass of mm refuses float32 and bfloat16"
    assert tiny.step(model).error is not None


CLASS = """\
class Scorer(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.drop = torch.nn.Dropout(0.1)
        self.score = torch.nn.Linear(encoder.config.hidden_size, 1)
    def forward(self, input_ids, mask):
        hidden = self.drop(self.encoder(input_ids).last_hidden_state)
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1)
        return self.score(pooled)
"""
MADE = LOADED + ADAPTED + "scorer = Scorer(model)\n"
LOSS = "for batch in loader:\n    scorer(**batch).sum().backward()\n    optimizer.step()\n"


def test_a_float32_head_refuses_the_output_of_a_16_bit_model():
    told = "the float32 score gets the bfloat16 output of encoder, and no autocast region surrounds it"

    assert findings(CODE, CLASS + MADE + LOSS) == [("error", "return self.score(pooled)", told)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(CLASS.replace("score(pooled)", "score(pooled.float())") + MADE + LOSS, id="cast"),
        pytest.param(CLASS.replace(".last_hidden_state", ".last_hidden_state.float()") + MADE + LOSS, id="cast before"),
        pytest.param(CLASS.replace("to(hidden.dtype)", "float()") + MADE + LOSS, id="promoted by a float32 mask"),
        pytest.param(CLASS.replace("size, 1)", "size, 1, dtype=torch.bfloat16)") + MADE + LOSS, id="the head too"),
        pytest.param(CLASS + MADE + "scorer.score.to(torch.bfloat16)\n" + LOSS, id="cast later"),
        pytest.param(CLASS + MADE + "with torch.autocast('cuda'):\n    " + LOSS.replace("\n", "\n    "), id="autocast"),
        pytest.param(CLASS + LOADED + PREPARED + ADAPTED + "scorer = Scorer(model)\n" + LOSS, id="float32 norms give float32"),
        pytest.param(CLASS + LOADED.replace(", dtype=torch.bfloat16)", ")") + ADAPTED + LOSS, id="unknown dtype"),
    ],
)
def test_heads_that_get_their_dtype(script):
    assert findings(CODE, script) == []


def test_a_real_float32_head_raises():
    model = tiny.load()
    hidden = model.model(torch.arange(8)[None]).last_hidden_state

    assert hidden.dtype is torch.bfloat16
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.nn.Linear(hidden.shape[-1], 1)(hidden)


class Casts(transformers.TrainerCallback):
    def on_train_begin(self, *_, model=None, **__):
        model.to(torch.float16)


@pytest.mark.parametrize(("callback", "severity"), [(Casts, "warning"), (transformers.TrainerCallback, "error")])
def test_a_callback_that_casts_the_model_first_makes_it_a_warning(callback, severity, tmp_path):
    row = {"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}
    arguments = transformers.TrainingArguments(tmp_path, max_steps=1, use_cpu=True, report_to="none", save_strategy="no")
    trainer = transformers.Trainer(trace_cases.bare_norms(), arguments, train_dataset=[row] * 2, callbacks=[callback()])
    (found,) = kbitlint.check(trainer, select=CODE).violations

    assert (found.severity.value, found.at.path) == (severity, "lm_head")
    assert found.message.endswith(", unless Casts.on_train_begin casts it") == (severity == "warning")
    if severity == "error":
        with pytest.raises(RuntimeError, match="same dtype"):
            trainer.train()
    else:
        trainer.train()
