from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from script_cases import IMPORTS, LOADED, beside

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


SAVED = "config = LoraConfig(r=8, modules_to_save=['embed_tokens', 'lm_head'])\n"
SCRIPT = LOADED + SAVED + "model = get_peft_model(model, config)\n"
TIED = {"tie_word_embeddings": True}


@pytest.mark.parametrize("names", ["['embed_tokens', 'lm_head']", "['lm_head']", "['embed_tokens']"])
def test_a_script_that_saves_copies_of_tied_weights(tmp_path, names):
    saved = SAVED.replace("['embed_tokens', 'lm_head']", names)

    assert beside(CODE, SCRIPT.replace(SAVED, saved), tmp_path, TIED) == [
        ("warning", saved.strip(), "embeddings and head are tied, and modules_to_save trains copies that are not")
    ]


def test_the_fix_ties_them_again(tmp_path):
    beside(CODE, SCRIPT, tmp_path, TIED)

    kbitlint.fix(str(tmp_path / "train.py"), select=CODE, unsafe=True)

    after = SCRIPT.replace("'lm_head'])", "'lm_head'], ensure_weight_tying=True)").replace("org/base", "base")
    assert (tmp_path / "train.py").read_text() == IMPORTS + after


@pytest.mark.parametrize(
    ("script", "config"),
    [
        pytest.param(SCRIPT, {"tie_word_embeddings": False}, id="not tied"),
        pytest.param(SCRIPT, {}, id="its class decides"),
        pytest.param(SCRIPT.replace("org/base", "org/other"), TIED, id="not on this machine"),
        pytest.param(SCRIPT.replace("r=8", "r=8, ensure_weight_tying=True"), TIED, id="tied again"),
        pytest.param(SCRIPT.replace("r=8", "r=8, **settings"), TIED, id="perhaps tied again"),
        pytest.param(SCRIPT.replace("['embed_tokens', 'lm_head']", "['score']"), TIED, id="another module"),
        pytest.param(SCRIPT.replace("['embed_tokens', 'lm_head']", "names"), TIED, id="unknown modules"),
        pytest.param(SCRIPT.replace(SAVED, ""), TIED, id="a config from elsewhere"),
    ],
)
def test_scripts_that_look_alike(tmp_path, script, config):
    assert beside(CODE, script, tmp_path, config) == []
