"""Rule KB316: undefined-loss."""

from __future__ import annotations

import peft
import pytest
import tiny
from torch import nn

import kbitlint
from kbitlint.model.batch import training_batch

CODE = "KB316"


def told(model):
    return [(v.severity.value, v.surface.value, v.message) for v in kbitlint.check(model, select=CODE).violations]


@pytest.mark.parametrize(("types", "trains"), [([1, 2], False), ([1, 4], True)])
def test_an_adapter_that_masks_every_label_is_reported_and_the_real_loss_is_nan(types, trains):
    """CPT shifts the types of a batch by its own largest one, and counts the labels whose type is a multiple of 4."""
    config = peft.CPTConfig(task_type="CAUSAL_LM", cpt_token_ids=[3, 5], cpt_mask=[1, 1], cpt_tokens_type_mask=types)
    model = peft.get_peft_model(tiny.load(), config)

    message = "the loss is nan: it is a mean of no elements"
    assert told(model) == ([] if trains else [("error", "trace", message)])
    step = tiny.step(model)
    assert (step.error, step.loss == step.loss) == (None, trains)  # NaN is not itself


class Halved(nn.Module):
    """A head of the user's own, whose loss averages the tokens from a place on, twice as heavy."""

    def __init__(self, model, first):
        super().__init__()
        self.model, self.first = model, first

    def forward(self, input_ids):
        scores = self.model(input_ids=input_ids).logits[:, self.first :]
        return {"loss": 2 * scores.float().mean() + 1}


@pytest.mark.parametrize(("first", "trains"), [(512, False), (8, True)])
def test_a_loss_of_the_users_own_that_averages_nothing_is_reported_too(first, trains):
    model = Halved(tiny.with_lora(tiny.load()), first)

    assert [severity for severity, _, _ in told(model)] == ([] if trains else ["error"])
    loss = model(**training_batch(model, "cpu"))["loss"]
    assert bool(loss.isfinite()) == trains
