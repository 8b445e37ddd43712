from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, VeraConfig, get_peft_model

import kbitlint

CODE = "KB636"
Q_PROJ = [f"model.layers.{number}.self_attn.q_proj" for number in (0, 1)]


def adapted(family="llama", **config):
    return get_peft_model(tiny.load(family), LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **config}))


def found(model):
    return [(v.at.path, v.severity.value, v.evidence["reason"]) for v in kbitlint.check(model, select=CODE).violations]


def unmoved(model):
    """The adapter parameters that some real steps of SGD do not change by a bit."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.SGD(trained.values(), lr=1.0)
    for seed in range(3):
        tiny.step(model, seed=seed)
        optimizer.step()
    return [name for name, parameter in trained.items() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("kind", ["lora_alpha", "alpha_pattern", "lora_dropout", "zeros", "embedding"])
def test_an_adapter_whose_gradient_is_always_zero_is_flagged_and_does_not_move(kind):
    if kind in ("zeros", "embedding"):
        model = adapted(target_modules=["q_proj"] if kind == "zeros" else ["embed_tokens"])
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.zero_()
    else:
        model = adapted(**{kind: {"lora_alpha": 0, "alpha_pattern": {"q_proj": 0}, "lora_dropout": 1.0}[kind]})
    reason = {
        "zeros": "both of its factors are zero",
        "embedding": "both of its factors are zero",
        "lora_dropout": "its dropout is 1, which drops every input",
    }.get(kind, "its scaling is 0 (lora_alpha)")
    places = ["model.embed_tokens"] if kind == "embedding" else Q_PROJ

    assert found(model) == [(path, "error", reason) for path in places]
    assert len(unmoved(model)) == 2 * len(places)


@pytest.mark.parametrize("config", [{}, {"init_lora_weights": "gaussian"}, {"init_lora_weights": "eva"}, {"use_rslora": True}])
def test_one_factor_of_zeros_is_the_normal_start(config):
    from peft import EvaConfig

    more = {"eva_config": EvaConfig()} if config.get("init_lora_weights") == "eva" else {}
    model = adapted(**config, **more)

    assert found(model) == []
    assert unmoved(model) == []


@pytest.mark.parametrize("trained", ["lora_A", "lora_B"])
def test_a_factor_that_trains_beside_one_that_is_frozen_at_zero_cannot_move(trained):
    model = adapted()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained in name)

    flagged = trained == "lora_A"  # the other factor starts with random values
    assert found(model) == [(path, "error", "one of its factors is frozen at zero") for path in Q_PROJ if flagged]
    assert len(unmoved(model)) == (len(Q_PROJ) if flagged else 0)


def test_embeddings_and_other_methods_are_not_flagged():
    assert found(adapted(target_modules=["embed_tokens", "q_proj"])) == []
    assert found(get_peft_model(tiny.load(), VeraConfig(r=4, target_modules=["o_proj"]))) == []


def test_an_adapter_that_does_not_train_is_another_matter():
    model = adapted(lora_alpha=0)
    model.requires_grad_(requires_grad=False)

    assert found(model) == []
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"
