from __future__ import annotations

import tiny
import torch
import trace_cases

CODE = "KB304"


def test_a_leaf_that_is_written_in_place_is_an_error_as_in_the_real_step():
    model = trace_cases.adapted()
    tiny.adapters_base(model).enable_input_require_grads()
    tiny.adapters_base(model).model.embed_tokens.register_forward_hook(lambda module, args, output: output.mul_(2))

    failure = "a leaf Variable that requires grad is being used in an in-place operation."
    told = trace_cases.trace_findings(model, CODE)
    assert [(severity, message) for _, severity, message in told] == [
        ("error", f"the training step raises RuntimeError: {failure}")
    ]
    assert tiny.step(model).error == failure


def test_a_value_that_backward_needs_and_code_overwrites_is_an_error():
    class Overwritten(torch.nn.Module):
        def __init__(self, mlp):
            super().__init__()
            self.mlp = mlp

        def forward(self, hidden):
            out = torch.sigmoid(self.mlp(hidden))
            kept = out * 1
            out.zero_()
            return kept

    model = trace_cases.adapted()
    tiny.adapters_base(model).gradient_checkpointing_disable()
    layer = tiny.adapters_base(model).model.layers[1]
    layer.mlp = Overwritten(layer.mlp)

    assert len(trace_cases.trace_findings(model, CODE)) == 1
    assert "modified by an inplace operation" in tiny.step(model).error


def test_steps_that_run_or_fail_for_a_reason_of_another_rule_are_not_reported():
    reentrant = trace_cases.adapted()
    tiny.bind_reentrant(reentrant, use_reentrant=True)

    assert trace_cases.trace_findings(trace_cases.adapted(), CODE) == []
    assert trace_cases.trace_findings(reentrant, CODE) == []
    assert trace_cases.trace_findings(trace_cases.bare_norms(), CODE) == []
