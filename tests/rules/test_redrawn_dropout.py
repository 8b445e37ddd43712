from __future__ import annotations

import pytest
import tiny
import torch

import kbitlint

CODE = "KB633"
LAYERS = ["model.layers.0", "model.layers.1"]


def model_of(dropout=0.3, *, reentrant=False, **kwargs):
    model = tiny.load()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant, **kwargs})
    return tiny.with_lora(model, lora_dropout=dropout)


def found(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def gradients(model):
    tiny.step(model)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("reentrant", [True, False])
def test_new_masks_give_the_gradients_of_another_function(reentrant):
    model = model_of(reentrant=reentrant, preserve_rng_state=False)
    wrong = gradients(model)
    model.get_base_model().gradient_checkpointing_disable()
    right = gradients(model)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": reentrant, "preserve_rng_state": False})

    assert found(model) == [(layer, "error") for layer in LAYERS]
    assert torch.nn.functional.cosine_similarity(wrong, right, dim=0) < 0.95


def test_masks_that_are_kept_give_the_same_gradients():
    model = model_of()
    kept = gradients(model)
    model.get_base_model().gradient_checkpointing_disable()

    assert torch.nn.functional.cosine_similarity(kept, gradients(model), dim=0) > 0.999
    assert found(model_of()) == found(model_of(preserve_rng_state=True)) == []


def test_without_dropout_nothing_is_drawn():
    assert found(model_of(0.0, preserve_rng_state=False)) == []


def test_a_model_that_does_not_checkpoint_is_not_flagged():
    assert found(tiny.with_lora(tiny.load(), lora_dropout=0.3)) == []


def test_dropout_of_attention_counts():
    model = model_of(0.0, preserve_rng_state=False)
    model.get_base_model().model.layers[1].self_attn.attention_dropout = 0.1

    assert found(model) == [("model.layers.1.self_attn"[:14], "error")]
