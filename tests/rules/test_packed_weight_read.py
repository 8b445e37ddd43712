from __future__ import annotations

import pytest
import tiny
import torch
import trace_cases

CODE = "KB503"


class _Sliced(torch.nn.Module):
    """Remote code that multiplies with ``.weight`` itself."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden):
        return torch.nn.functional.linear(hidden, self.mlp.up_proj.weight) @ self.mlp.down_proj.weight.T


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_code_that_multiplies_with_a_packed_weight_is_an_error_as_in_the_real_step(kind):
    model = tiny.prepared(kind=kind)
    model.model.layers[0].mlp = _Sliced(model.model.layers[0].mlp)
    told = trace_cases.trace_findings(model, CODE)

    message = "code computes with the packed weight of up_proj instead of calling it"
    assert ("model.layers.0.mlp.mlp.up_proj", "error", message) in told
    assert tiny.step(model).error is not None


def test_the_reader_is_named_and_the_layer_to_leave_out():
    model = tiny.prepared()
    model.model.layers[0].mlp = _Sliced(model.model.layers[0].mlp)
    violation = trace_cases.violations(model, CODE)[0]

    assert (violation.evidence["reader"], violation.fix.title) == (
        "model.layers.0.mlp",
        'load with llm_int8_skip_modules=["up_proj", "lm_head"]',
    )


def test_layers_that_are_called_are_clean_and_so_is_reading_a_float_weight():
    model = tiny.prepared()
    assert trace_cases.trace_findings(model, CODE) == []

    model.lm_head.register_forward_hook(lambda module, args, output: output + module.weight.sum())
    assert trace_cases.trace_findings(model, CODE) == []


def test_code_that_casts_packed_values_runs_with_wrong_ones_and_is_a_warning():
    import peft

    config = peft.PeanutConfig(target_modules=["q_proj"])
    model = peft.get_peft_model(tiny.load(kind="int8"), config)

    assert {severity for _, severity, _ in trace_cases.trace_findings(model, CODE)} == {"warning"}
    assert tiny.step(model).trains


class _Adapter(torch.nn.Module):
    """An adapter of a class that nobody knows. ``how`` computes the update from the layer and the input."""

    def __init__(self, layer, how):
        super().__init__()
        self.layer, self.how = layer, how
        self.factor = torch.nn.Parameter(torch.ones(64 * 64, dtype=torch.bfloat16))

    def forward(self, hidden):
        return self.layer(hidden) + self.how(self, hidden)


READS = {
    "its shape": (lambda own, x: x @ own.factor.reshape(own.layer.weight.shape), "KB503"),
    "its data": (lambda own, x: x @ own.layer.weight.data.to(x.dtype), "KB503"),
    "its dtype": (lambda own, x: (x * own.factor[:64]).to(own.layer.weight.dtype).norm(), "KB102"),
}


@pytest.mark.parametrize("read", READS)
def test_an_adapter_of_any_class_that_takes_something_of_the_packed_weight_is_an_error_as_in_the_real_step(read):
    how, code = READS[read]
    model = tiny.prepared()
    attention = model.model.layers[0].self_attn
    attention.q_proj = _Adapter(attention.q_proj, how)

    assert [severity for _, severity, _ in trace_cases.trace_findings(model, code)] == ["error"]
    assert trace_cases.skipped(model, code) == []
    assert tiny.step(model).error is not None


@pytest.mark.parametrize("config", ["HRA", "LoHa", "LoKr"])
def test_adapters_of_peft_that_use_the_shape_of_the_bytes_are_named_with_their_layer(config):
    import peft

    model = peft.get_peft_model(tiny.load(), getattr(peft, f"{config}Config")(target_modules=["q_proj"], r=4))
    (violation, *_) = trace_cases.violations(model, CODE)

    assert violation.severity.value == "error"
    assert violation.message == "code computes with the packed weight of q_proj instead of calling it"
    assert tiny.step(model).error is not None
