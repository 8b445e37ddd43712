"""Rule KB330: unfit-optimizer-state."""

from __future__ import annotations

import pytest
import tiny
import torch

import kbitlint

CODE = "KB330"
Q_PROJ = "model.layers.0.self_attn.q_proj.lora_A.default.weight"


def trained():
    """A model after one real step, with its optimizer."""
    model = tiny.with_lora(tiny.prepared(), target_modules=["q_proj"], init_lora_weights=False)
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    tiny.step(model)
    optimizer.step()
    return model, optimizer


def found(model, optimizer):
    report = kbitlint.check(model, select=CODE, optimizer=optimizer)
    return [(v.at.path, v.severity.value, v.message) for v in report.violations]


def spoilt(model, optimizer, values):
    parameter = next(p for name, p in model.named_parameters() if name.endswith(Q_PROJ))
    optimizer.state[parameter]["exp_avg"] = values(optimizer.state[parameter]["exp_avg"])


def test_the_state_of_a_real_step_fits():
    assert found(*trained()) == []


def test_averages_of_another_shape_stop_the_next_step():
    model, optimizer = trained()
    spoilt(model, optimizer, lambda average: torch.zeros(8, 3))

    ((path, severity, message),) = found(model, optimizer)

    assert (path.removeprefix("base_model.model."), severity) == (Q_PROJ, "error")
    assert message == ("the optimizer does not fit this parameter: its exp_avg has the shape [8, 3], and the parameter [4, 64]")
    with pytest.raises(RuntimeError, match="must match"):
        optimizer.step()


def test_averages_with_nan_make_the_parameter_nan():
    model, optimizer = trained()
    spoilt(model, optimizer, lambda average: torch.full_like(average, float("nan")))

    ((path, severity, message),) = found(model, optimizer)

    assert (severity, message) == ("error", "the optimizer does not fit this parameter: its exp_avg holds NaN or infinity")
    optimizer.step()
    assert dict(model.named_parameters())[path if path.startswith("base_model") else f"base_model.model.{path}"].isnan().all()


def test_adamw_refuses_the_sparse_gradient_of_an_embedding():
    model = tiny.with_lora(tiny.prepared(), target_modules=["q_proj"])
    embedding = model.get_input_embeddings()
    embedding.sparse = True
    embedding.weight.requires_grad_(requires_grad=True)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable)

    assert [severity for _, severity, _ in found(model, optimizer)] == ["error"]
    assert found(model, torch.optim.SGD(trainable, lr=0.1)) == []
    tokens = torch.arange(8)[None]
    model.train()(input_ids=tokens, labels=tokens).loss.backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
