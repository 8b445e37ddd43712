"""Tensor parallelism: what a rank holds, beside real ranks, and what is refused where real ranks raise."""

from __future__ import annotations

import gloo
import pytest
import tiny
import torch
import transformers

import kbitlint
from kbitlint.model.memory.tensor_parallel import split
from kbitlint.model.trace.twin import twin_of

WIDE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def plain(name="Llama", **values):
    config = getattr(transformers, f"{name}Config")(**(WIDE | values))
    return getattr(transformers, f"{name}ForCausalLM")._from_config(config, dtype=torch.bfloat16)


QV = "targets=q_proj+v_proj"
needs_plan = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 trains no model with such a plan")


@needs_plan
@pytest.mark.usefixtures("preloaded")
@pytest.mark.slow
def test_a_rank_takes_what_is_told_and_raises_where_it_is_refused(tmp_path):
    plain().save_pretrained(tmp_path)
    ranks = gloo.run("tensor_parallel", 2, str(tmp_path))

    for cases, (real, told) in ranks:
        assert {name: outcome is None for name, (outcome, _) in cases.items()} == {
            "columns": True,
            "rows": False,
            "nf4": False,
            "int8": False,
        }
        assert {name: refusal is None for name, (_, refusal) in cases.items()} == {
            name: outcome is None for name, (outcome, _) in cases.items()
        }
        assert told == pytest.approx(real, rel=0.1)


@needs_plan
def test_the_weights_of_a_rank_are_its_part_of_the_plan():
    model = plain()
    twin = split(twin_of(model), 2)
    shapes = {name.removeprefix("model.layers.0."): tuple(weight.shape) for name, weight in twin.named_parameters()}

    assert {
        name: shapes[f"{name}.weight"] for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    } == {
        "self_attn.k_proj": (64, 256),
        "self_attn.o_proj": (256, 128),
        "mlp.up_proj": (256, 256),
        "mlp.down_proj": (256, 256),
    }
    assert (shapes["lm_head.weight"], shapes["model.embed_tokens.weight"]) == ((1024, 256), (1024, 256))
    assert shapes["input_layernorm.weight"] == (256,)
    tied = split(twin_of(plain(tie_word_embeddings=True)), 2)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert tuple(tied.lm_head.weight.shape) == (1024, 256)


@needs_plan
@pytest.mark.parametrize(
    ("make", "ranks", "lora", "line"),
    [
        (
            lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=64)),
            2,
            "r=8",
            "has none for GPT2LMHead",
        ),
        (plain, 4, QV, "4 ranks do not divide num_key_value_heads=2"),
        (lambda: plain(vocab_size=2047), 2, QV, "2 ranks do not divide the 2047 of"),
        (tiny.load, 2, QV, "takes no weights of bitsandbytes"),
        (lambda: tiny.load(kind="int8"), 2, QV, "takes no weights of bitsandbytes"),
        (
            lambda: plain("Mixtral", num_local_experts=2),
            2,
            QV,
            "the style '.*' of transformers' plan, which model.layers.0.mlp.experts has, is not measured",
        ),
    ],
)
def test_what_no_rank_can_train_is_one_line(make, ranks, lora, line):
    with pytest.raises(kbitlint.KbitlintError, match=line):
        kbitlint.memory(make(), seq_len=32, gpus=ranks, strategy="tp", lora=lora)


@needs_plan
def test_the_table_of_a_rank_of_tensor_parallelism():
    context = kbitlint.TrainingContext(autocast_dtype="float32")
    how = {"seq_len": 64, "lora": "r=8,targets=q_proj+v_proj", "context": context}
    one, rank = kbitlint.memory(plain(), **how), kbitlint.memory(plain(), gpus=2, strategy="tp", **how)
    whole, half = one.states[0], rank.states[0]

    assert rank.launch == "one of 2 ranks, tp"
    assert half.resident["embeddings and head"] * 2 == whole.resident["embeddings and head"]
    assert half.resident["other weights"] * 2 == whole.resident["other weights"]
    assert half.resident["norms"] == whole.resident["norms"]
    assert half.steps["no checkpointing"].activations < whole.steps["no checkpointing"].activations
    assert kbitlint.fit(plain(), gpu="24GB", gpus=2, strategy="tp", **how).fits
    with pytest.raises(kbitlint.KbitlintError, match=r"trains no adapter on model.layers.0.self_attn.o_proj, which is split"):
        kbitlint.memory(plain(), gpus=2, strategy="tp", seq_len=32)
