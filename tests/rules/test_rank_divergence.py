from __future__ import annotations

import tiny

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.ranks import RanksFacts, aspects_of, compare
from kbitlint.model.inspect.optimizer import adapter_settings
from kbitlint.model.inspect.walk import collect
from kbitlint.registry import find
from kbitlint.violation import Surface

CODE = "KB705"
# what DDP really makes of ranks that differ is held against this rule in tests/integrations/test_ranks.py


def aspects(model):
    return aspects_of(collect(model), adapter_settings(model), sharded=False)


def found(*models):
    facts = RanksFacts(len(models), collect(models[0]), compare(dict(enumerate(map(aspects, models)))))
    outcome = run([find(CODE)], {Surface.RANKS: facts}, TrainingContext())
    return [(v.at.path, v.severity.value, v.message) for v in outcome.violations]


def test_ranks_that_are_alike_are_clean():
    assert found(tiny.with_lora(tiny.load()), tiny.with_lora(tiny.load())) == []


def test_the_settings_of_adapters_are_compared():
    assert found(tiny.with_lora(tiny.load(), lora_alpha=8), tiny.with_lora(tiny.load(), lora_alpha=16)) == [
        ("", "error", "adapters differ between ranks: 8 on rank 0, 16 on rank 1")
    ]


def test_checkpointing_hooks_and_frozen_dtypes_cost_but_train_the_same():
    one, other = tiny.load(), tiny.load()
    tiny.bind_reentrant(other, use_reentrant=True)
    other.enable_input_require_grads()
    other.requires_grad_(False)
    one.requires_grad_(False)
    other.model.norm.weight.data = other.model.norm.weight.data.float()

    assert found(one, other) == [
        (
            "model.embed_tokens",
            "warning",
            "input-grad hooks differ between ranks: absent on rank 0, 1 on rank 1",
        ),
        ("model.layers.0", "warning", "checkpointing differ between ranks: absent on rank 0, use_reentrant=True on rank 1"),
        ("model.layers.1", "warning", "checkpointing differ between ranks: absent on rank 0, use_reentrant=True on rank 1"),
        ("model.norm.weight", "warning", "frozen dtypes differ between ranks: bfloat16 on rank 0, float32 on rank 1"),
    ]


def test_the_same_parameters_in_another_order_are_an_error():
    one, other = tiny.with_lora(tiny.load()), tiny.with_lora(tiny.load())
    layers = other.get_base_model().model.layers
    modules = layers._modules
    modules["0"] = modules.pop("0")

    messages = {path: (severity, message) for path, severity, message in found(one, other)}
    assert messages["model.layers.0.self_attn.q_proj.lora_A.default.weight"] == (
        "error",
        "order differ between ranks: 0 on rank 0, 14 on rank 1",
    )
    assert len(messages) == 28


def test_where_the_sets_differ_the_order_is_not_reported_as_well():
    one, other = tiny.with_lora(tiny.load(), target_modules=["q_proj"]), tiny.with_lora(tiny.load(), target_modules=["o_proj"])

    aspects_found = {message.split(" differ ")[0] for _, _, message in found(one, other)}

    assert aspects_found == {"adapters", "trainable parameters"}
