from __future__ import annotations

import pytest
import tiny
import torch
import trace_cases

import kbitlint
from kbitlint.context import Strategy, TrainingContext

CODE = "KB303"


def without_grad(layer, *args, **kwargs):
    with torch.no_grad():
        return layer(*args, **kwargs)


def test_a_layer_under_no_grad_is_an_error_where_its_adapters_learn_nothing():
    model = trace_cases.adapted()
    trace_cases.wrap_layer(model, 0, without_grad)

    message = "no gradient reaches trainable parameters in it: the module runs without recording gradients"
    assert trace_cases.trace_findings(model, CODE) == [("model.layers.0.layer", "error", message)]
    missing = tiny.step(model).missing
    assert missing
    assert all(".layers.0." in name for name in missing)


def test_a_hook_that_detaches_is_an_error():
    model = trace_cases.adapted()
    tiny.adapters_base(model).model.layers[1].register_forward_hook(lambda module, args, output: output.detach())

    message = "no gradient reaches trainable parameters in it: the module detaches what depends on it"
    assert trace_cases.trace_findings(model, CODE) == [("model.layers.1", "error", message)]
    assert "does not require grad" in tiny.step(model).error


def test_a_base_is_told_before_adapters_are_attached():
    model = tiny.prepared()
    trace_cases.wrap_layer(model, 0, without_grad)

    message = "no gradient reaches adapters on quantized layers in it: the module runs without recording gradients"
    assert trace_cases.trace_findings(model, CODE) == [("model.layers.0.layer", "error", message)]


def with_indexer():
    """DeepSeek-V3.2's indexer picks positions: its scores choose, and no gradient passes through a choice."""
    import kbitlint

    model = tiny.load("deepseek_v32 (indexer)")
    kbitlint.fix(model)
    return tiny.with_lora(model)


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 has no architecture with an indexer")
def test_what_the_class_itself_cuts_is_worth_knowing_and_no_more():
    model = with_indexer()

    told = trace_cases.trace_findings(model, CODE)
    assert {(path.split(".")[4], severity) for path, severity, _ in told} == {("indexer", "info")}
    assert all(message.endswith("as its class is written") for _, _, message in told)
    missing = tiny.step(model).missing
    assert missing
    assert all(".indexer." in name for name in missing)


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 has no architecture with an indexer")
def test_under_ddp_that_looks_for_no_unused_parameters_it_is_an_error():
    waiting = TrainingContext("float32", strategy=Strategy.DDP, find_unused_parameters=False)

    assert {severity for _, severity, _ in trace_cases.trace_findings(with_indexer(), CODE, waiting)} == {"error"}


def test_reentrant_checkpoints_are_left_to_the_rule_on_them():
    model = trace_cases.adapted()
    tiny.bind_reentrant(model, use_reentrant=True)

    assert trace_cases.trace_findings(model, CODE) == []
    assert [path for path, _, _ in trace_cases.trace_findings(model, "KB301")] == ["model.layers.0", "model.layers.1"]


def test_adapters_that_learn_are_not_reported():
    assert trace_cases.trace_findings(trace_cases.adapted(), CODE) == []
    assert trace_cases.trace_findings(trace_cases.adapted("t5 (encoder-decoder)"), CODE) == []


def test_a_step_that_stops_before_any_gradient_is_a_skip():
    model = trace_cases.adapted()
    trace_cases.wrap_layer(model, 0, lambda layer, hidden, *_, **__: layer.self_attn.q_proj.weight @ hidden)

    assert trace_cases.skipped(model, CODE) == ["the step stops before a gradient could arrive"]


def test_a_users_own_module_that_runs_its_backbone_without_gradients_is_an_error():
    class Classifier(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.head = model, torch.nn.Linear(64, 2)

        def forward(self, input_ids, attention_mask=None):
            with torch.no_grad():
                backbone = tiny.adapters_base(self.model).model
                hidden = backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return self.head(hidden.float()[:, -1])

    model = Classifier(tiny.with_lora(tiny.prepared()))
    told = [(v.at.path, v.severity.value) for v in kbitlint.check(model, select="KB303").violations]
    step = tiny.step(model)

    assert told == [("model", "error")]
    assert (step.error, step.arrived) == (None, ("head.weight", "head.bias"))
