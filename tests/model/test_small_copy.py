from __future__ import annotations

import pytest
import tiny
import torch
import transformers

from kbitlint.model.trace import small_copy

LLAMA = {"num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64}


def test_a_small_config_keeps_the_shape_of_a_head_and_the_groups():
    config = transformers.LlamaConfig(**LLAMA, num_key_value_heads=8)
    small = small_copy.small(config, narrow=True)

    assert (small.num_hidden_layers, small.num_attention_heads, small.num_key_value_heads) == (2, 8, 1)
    assert small.hidden_size // small.num_attention_heads == 8192 // 64
    assert (config.num_hidden_layers, config.hidden_size) == (80, 8192)


def test_lists_with_an_item_for_each_layer_are_cut():
    config = transformers.Gemma2Config(num_hidden_layers=6)
    small = small_copy.small(config, narrow=False)

    assert (len(config.layer_types), small.layer_types) == (6, config.layer_types[:2])


@pytest.mark.parametrize("family", ["llama", "whisper (reads sound)", "llava (vision-language)"])
def test_a_small_copy_of_a_class_trains(family):
    model = tiny.load(family)
    made = small_copy._built(model, numbered=False)

    assert type(made) is type(model)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
    assert tiny.step(made).error is None


def test_a_class_that_stays_large_has_none():
    config = transformers.LlamaConfig(**LLAMA, vocab_size=200_000)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)

    with pytest.raises(small_copy.NotBuiltError, match="parameters"):
        small_copy._built(model, numbered=False)


def test_an_error_is_not_like_the_one_during_which_the_copy_ran():
    traced, another = AttributeError("of the traced step"), AttributeError("of the copy")
    another.__context__ = traced

    assert not small_copy._alike(another, traced)  # the comparison itself
    assert small_copy._alike(AttributeError("of the traced step"), traced)  # see above
