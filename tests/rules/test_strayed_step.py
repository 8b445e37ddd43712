"""Rule KB337: strayed-step."""

from __future__ import annotations

import pytest
import tiny
import torch

import kbitlint

CODE = "KB337"


def trained(make):
    """Return a model, the losses of some real steps of its optimizer on one batch, and what kbitlint reported before."""
    model = tiny.with_lora(tiny.prepared(), target_modules=["q_proj", "v_proj"])
    optimizer = make([parameter for parameter in model.parameters() if parameter.requires_grad])
    told = [(v.severity.value, v.message) for v in kbitlint.check(model, optimizer=optimizer, select=CODE).violations]
    losses = []
    for _ in range(4):
        losses.append(tiny.step(model).loss)
        optimizer.step()
    return told, losses


def decayed(kind, rate, decay):
    return lambda parameters: getattr(torch.optim, kind)(parameters, lr=rate, weight_decay=decay)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda parameters: torch.optim.SGD(parameters, lr=float("inf")), "the learning rate is inf"),
        (decayed("AdamW", 1e-3, 2000), "weight_decay=2000 at a rate of 0.001 multiplies each parameter with -1 in each step"),
        (decayed("SGD", 0.5, 2), "weight_decay=2 at a rate of 0.5 multiplies each parameter with 0 in each step"),
        (
            lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, dampening=1),
            "dampening=1 adds nothing of a gradient to the momentum after the first step",
        ),
    ],
    ids=["infinite", "turned", "cleared", "dampened"],
)
def test_settings_that_keep_steps_from_the_gradient_are_errors(make, message):
    told, losses = trained(make)

    assert told == [("error", message)]
    assert not losses[-1] < losses[0] - 0.01


def test_a_step_up_the_gradient_is_a_warning():
    told, losses = trained(lambda parameters: torch.optim.SGD(parameters, lr=1.0, maximize=True))

    assert told == [("warning", "maximize=True lets each step go up the gradient, so that the loss rises")]
    assert losses[-1] > losses[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=1.0, weight_decay=0.01),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-4),
    ],
    ids=["SGD", "AdamW", "Adam"],
)
def test_usual_settings_learn(make):
    told, losses = trained(make)

    assert told == []
    assert losses[-1] < losses[0]
