from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB205"


def adapted(family="llama (tied)", **config):
    return get_peft_model(tiny.load(family), LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **config}))


def found(model):
    return [(v.at.path, v.message) for v in kbitlint.check(model, select=CODE).violations]


def test_two_copies_are_flagged_and_drift_apart():
    model = adapted(modules_to_save=["embed_tokens", "lm_head"])
    base = model.get_base_model()
    embedding, head = (module.modules_to_save["default"].weight for module in (base.model.embed_tokens, base.lm_head))
    assert torch.equal(embedding, head)

    assert found(model) == [("model.embed_tokens", "trained apart from lm_head, to which it is tied")]
    assert tiny.step(model).trains
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not torch.equal(embedding, head)


@pytest.mark.parametrize(
    ("config", "place", "message"),
    [
        ({"modules_to_save": ["lm_head"]}, "lm_head", "trained without model.embed_tokens, to which it is tied"),
        ({"modules_to_save": ["embed_tokens"]}, "model.embed_tokens", "trained without lm_head, to which it is tied"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "model.embed_tokens", "trained without lm_head, to which it is tied"),
    ],
)
def test_one_of_the_two_places_is_flagged(config, place, message):
    assert found(adapted(**config)) == [(place, message)]


def test_copies_that_stay_tied_are_not_flagged():
    assert found(adapted(modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True)) == []
    assert found(adapted(trainable_token_indices=[1, 2])) == []


def test_where_neither_is_trained_nothing_is_flagged():
    assert found(adapted()) == []


def test_weights_that_were_never_tied_are_not_flagged():
    assert found(adapted("llama", modules_to_save=["embed_tokens", "lm_head"])) == []


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load("llama (tied)"), select=CODE).skips[0].reason == "no adapters are attached yet"


def test_an_adapter_in_a_module_with_a_tied_bias_is_not_on_the_bias():
    """BERT ties the bias of its decoder to one of the module around it, and an adapter may sit beside both."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, is_decoder=True
    )
    model = transformers.BertLMHeadModel(config)

    assert found(get_peft_model(model, LoraConfig(r=4, target_modules=["transform.dense"]))) == []
