"""Paths of the linear layers in the blocks of models: transformers 5.23, the text part of each type.

A loop over ``named_parameters()`` and a pattern of PEFT see paths, and not the last names that ``architectures.py`` has.
A test builds each type on the meta device and compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTENTION = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"
_LLAMA = (("model.layers", f"{_ATTENTION} mlp.gate_proj mlp.up_proj mlp.down_proj"),)
_OUT = "self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj"
_NEOX = "dense mlp.dense_h_to_4h mlp.dense_4h_to_h"
_GPT2 = (("transformer.h", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj"),)
_FALCON = (("transformer.h", f"self_attention.query_key_value self_attention.{_NEOX}"),)
_BERT = "attention.self.query attention.self.key attention.self.value attention.output.dense intermediate.dense output.dense"
_T5 = "layer.0.SelfAttention.q layer.0.SelfAttention.k layer.0.SelfAttention.v layer.0.SelfAttention.o"
_CROSS = "layer.1.EncDecAttention.q layer.1.EncDecAttention.k layer.1.EncDecAttention.v layer.1.EncDecAttention.o"


def _encoder_decoder(words: str) -> tuple[tuple[str, str], ...]:
    """Return the stacks of a T5, whose feed-forward layers have these names."""
    feeds = [" ".join(f"layer.{number}.DenseReluDense.{word}" for word in words.split()) for number in (1, 2)]
    return ("encoder.block", f"{_T5} {feeds[0]}"), ("decoder.block", f"{_T5} {_CROSS} {feeds[1]}")


#: model type -> (path of a stack of blocks, paths of the linear layers in a block)
STACKS: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        (
            *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "stablelm", "olmo", "olmo2", "granite"),
            *("smollm3", "cohere"),
        ),
        _LLAMA,
    ),
    **dict.fromkeys(("mixtral", "qwen3_moe"), (("model.layers", _ATTENTION),)),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _GPT2),
    **dict.fromkeys(("falcon", "bloom"), _FALCON),
    **{kind: ((f"{kind}.encoder.layer", _BERT),) for kind in ("bert", "roberta", "electra")},
    "phi": (("model.layers", "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.dense mlp.fc1 mlp.fc2"),),
    "phi3": (("model.layers", "self_attn.o_proj self_attn.qkv_proj mlp.gate_up_proj mlp.down_proj"),),
    **dict.fromkeys(("glm", "glm4"), (("model.layers", f"{_ATTENTION} mlp.gate_up_proj mlp.down_proj"),)),
    "gpt_neo": (
        (
            "transformer.h",
            "attn.attention.k_proj attn.attention.v_proj attn.attention.q_proj attn.attention.out_proj mlp.c_fc mlp.c_proj",
        ),
    ),
    "gpt_neox": (("gpt_neox.layers", f"attention.query_key_value attention.{_NEOX}"),),
    "gptj": (("transformer.h", "attn.k_proj attn.v_proj attn.q_proj attn.out_proj mlp.fc_in mlp.fc_out"),),
    "codegen": (("transformer.h", "attn.qkv_proj attn.out_proj mlp.fc_in mlp.fc_out"),),
    "opt": (("model.decoder.layers", f"{_OUT} fc1 fc2"),),
    "starcoder2": (("model.layers", f"{_ATTENTION} mlp.c_fc mlp.c_proj"),),
    "t5": _encoder_decoder("wi wo"),
    "mt5": _encoder_decoder("wi_0 wi_1 wo"),
    "bart": (
        ("model.encoder.layers", f"{_OUT} fc1 fc2"),
        ("model.decoder.layers", f"{_OUT} {_OUT.replace('self_attn', 'encoder_attn')} fc1 fc2"),
    ),
    "distilbert": (
        (
            "distilbert.transformer.layer",
            "attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1 ffn.lin2",
        ),
    ),
}


def layer_paths(model_type: str, blocks: tuple[int, ...] = (0,)) -> Iterator[str]:
    """Yield the path of each linear layer in some blocks of a type; nothing for a type that is not listed."""
    for stack, layers in STACKS.get(model_type, ()):
        for number in blocks:
            yield from (f"{stack}.{number}.{layer}" for layer in layers.split())


#: embeddings and heads of language models, by the name that any of them has
OUTER = frozenset(
    ("embed_tokens", "wte", "wpe", "embed_in", "embed_out", "word_embeddings", "tok_embeddings", "lm_head", "output_layer")
)
_HEADED = ("embed_tokens", "lm_head")
#: model type -> its embeddings and its head, in a class for causal language models
OUTER_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((name for name, stacks in STACKS.items() if stacks[0][0] == "model.layers"), _HEADED),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neo"), ("wte", "wpe", "lm_head")),
    **dict.fromkeys(("gptj", "codegen"), ("wte", "lm_head")),
    **dict.fromkeys(("falcon", "bloom"), ("word_embeddings", "lm_head")),
    "gpt_neox": ("embed_in", "embed_out"),
    "opt": _HEADED,
}
#: model type of images and text -> the part between the tower and the language model, with its linear layers
CONNECTORS: dict[str, str] = {
    **dict.fromkeys(("llava", "llava_next", "llava_onevision", "gemma3", "paligemma", "mistral3"), "multi_modal_projector"),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "merger"),
    **dict.fromkeys(("idefics3", "smolvlm"), "connector"),
}
#: paths of language layers before transformers 5 -> since; and those of towers
_BLOCK = f"{_ATTENTION} mlp.gate_proj mlp.up_proj mlp.down_proj"
_RENAMED: dict[str, str] = {
    **dict.fromkeys(("llava", "llava_next", "llava_onevision", "mistral3"), "language_model.model.layers"),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), "model.layers"),
}
_TOWERS = (
    "model.vision_tower.encoder.layers.{}.self_attn.q_proj model.vision_tower.encoder.layers.{}.mlp.fc1 "
    "model.vision_tower.vision_model.encoder.layers.{}.self_attn.q_proj model.visual.blocks.{}.attn.qkv "
    "model.visual.blocks.{}.mlp.fc1"
)


def renamed_paths(model_type: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths of a type's language layers before transformers 5, and all its paths since; none if they are alike."""
    old = _RENAMED.get(model_type)
    if old is None:
        return (), ()
    blocks = range(100)
    since = [f"model.language_model.layers.{number}.{layer}" for number in blocks for layer in _BLOCK.split()]
    towers = [path.format(number) for path in _TOWERS.split() for number in blocks]
    return tuple(f"{old}.{number}.{layer}" for number in blocks for layer in _BLOCK.split()), (*since, *towers)
