from __future__ import annotations

import tiny
import torch
import trace_cases

from kbitlint.model.trace.trace import trace

CODE = "KB405"
KEPT = "checkpointing is enabled, and the layer keeps its activations all the same"


def test_a_checkpoint_function_that_only_calls_the_layer_saves_nothing():
    model = trace_cases.adapted()
    effective = trace(model, trace_cases.NO_AUTOCAST).saved_bytes
    tiny.adapters_base(model)._set_gradient_checkpointing(True, lambda function, *args, **_: function(*args))

    assert trace_cases.trace_findings(model, CODE) == [(f"model.layers.{layer}", "warning", KEPT) for layer in (0, 1)]
    assert trace(model, trace_cases.NO_AUTOCAST).saved_bytes > 3 * effective


def test_layers_that_checkpoint_are_clean_in_either_way():
    model = trace_cases.adapted()
    assert trace_cases.trace_findings(model, CODE) == []

    tiny.bind_reentrant(model, use_reentrant=True)
    tiny.adapters_base(model).enable_input_require_grads()
    assert trace_cases.trace_findings(model, CODE) == []


def test_layers_in_eval_mode_are_left_to_the_rule_on_them():
    model = trace_cases.adapted()
    model.eval()

    assert trace_cases.trace_findings(model, CODE) == []


def test_a_layer_that_does_not_run_is_not_reported():
    model = trace_cases.adapted()
    tiny.adapters_base(model)._set_gradient_checkpointing(True, lambda function, *args, **_: function(*args))
    trace_cases.wrap_layer(model, 1, lambda layer, hidden, *_, **__: hidden)

    assert [path for path, _, _ in trace_cases.trace_findings(model, CODE)] == ["model.layers.0"]


def test_what_is_kept_outside_of_layers_does_not_count():
    model = trace_cases.adapted()
    tiny.adapters_base(model).model.norm.weight.requires_grad = True

    assert trace_cases.trace_findings(model, CODE) == []
    assert torch.is_grad_enabled()
