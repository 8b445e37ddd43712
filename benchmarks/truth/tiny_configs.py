"""The tiny config of each model type of transformers: shrunk by rules, or made by hand where its parts must fit each other."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import CONFIG_MAPPING

from benchmarks.truth.config_sizes import HEAD_SIZE, HEADS, HIDDEN, INTERMEDIATE, LAYERS, SHARED_KEYS, VOCABULARY
from benchmarks.truth.shrunk_configs import shrunk


def _dbrx() -> Any:
    config = transformers.DbrxConfig(
        d_model=HIDDEN,
        n_heads=HEADS,
        n_layers=LAYERS,
        max_seq_len=128,
        vocab_size=VOCABULARY,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8},
        ffn_config={"ffn_hidden_size": INTERMEDIATE, "moe_num_experts": 4, "moe_top_k": 2},
    )
    config.attn_config.rope_theta = 1e4  # the model reads an attribute that its config class lacks
    return config


def _dots3_note_text() -> Any:
    ranks = {"q_lora_rank": 32, "kv_lora_rank": 32, "head_dim": 16, "qk_nope_head_dim": 8, "v_head_dim": 16}
    sliding = {f"swa_{name}": value for name, value in ranks.items()}
    return CONFIG_MAPPING["dots3_note_text"](
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        moe_intermediate_size=32,
        shared_experts_intermediate_size=32,
        num_hidden_layers=3,
        layer_types=["indexed_attention", "sliding_attention", "indexed_attention"],
        mlp_layer_types=["dense", "sparse", "sparse"],
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        swa_num_attention_heads=HEADS,
        swa_num_key_value_heads=HEADS,
        n_routed_experts=4,
        num_experts_per_tok=2,
        qk_rope_head_dim=8,
        index_topk=8,
        index_head_dim=16,
        index_n_heads=HEADS,
        sliding_window=16,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **ranks,
        **sliding,
    )


def _dots3_note() -> Any:
    from transformers.models.dots3_note import configuration_dots3_note as dots3

    tower = {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": 2, "num_attention_heads": HEADS}
    vision = dots3.Dots3NoteVisionConfig(
        **tower,
        moe_intermediate_size=32,
        mlp_layer_types=["dense", "sparse"],
        num_local_experts=4,
        adapter_in_dim=HIDDEN,
        adapter_out_dim=HIDDEN,
    )
    audio = dots3.Dots3NoteAudioConfig(
        **tower, adapter_input_size=HIDDEN, adapter_out_dim=HIDDEN, downsample_hidden_size=16, max_position_embeddings=128
    )
    return dots3.Dots3NoteConfig(
        text_config=_dots3_note_text(),
        vision_config=vision,
        audio_config=audio,
        image_token_id=3,
        video_token_id=4,
        audio_token_id=5,
    )


def _assistant(model_type: str, **changes: Any) -> Any:
    """Return the config of a draft model, which shares the keys of the model that it drafts for."""
    text = shrunk(CONFIG_MAPPING[f"{model_type}_text"](), further={"global_head_dim": HEAD_SIZE, **changes})
    return CONFIG_MAPPING[f"{model_type}_assistant"](
        text_config=text, backbone_hidden_size=HIDDEN, num_centroids=16, centroid_intermediate_top_k=4
    )


def _qwen4_exp_text() -> Any:
    return CONFIG_MAPPING["qwen4_exp_text"](
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=3,
        layer_types=["linear_attention", "linear_attention", "indexed_attention"],
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        head_dim=HEAD_SIZE,
        linear_key_head_dim=HEAD_SIZE,
        linear_value_head_dim=HEAD_SIZE,
        linear_num_key_heads=2,
        linear_num_value_heads=HEADS,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        hc_count=2,
        hc_lowrank=8,
        ple_layer_ids=[1],
        ple_embed_dim=32,
        heads_per_ngram=2,
        ngram_vocab_size_base=64,
        make_ngram_vocab_size_divisible_by=8,
        split_ngram_parts=2,
        indexer_n_heads=2,
        indexer_kv_heads=1,
        indexer_head_dim=16,
        indexer_budget=8,
        indexer_compress_ratio=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def _qwen4_exp() -> Any:
    cls = CONFIG_MAPPING["qwen4_exp"]
    return cls(text_config=_qwen4_exp_text(), vision_config=shrunk(cls().vision_config))


def _with_timm(model_type: str, architecture: str, width: int, **arguments: Any) -> Any:
    """Return the config of a vision-language model with a tower of timm, which has its own names for sizes."""
    cls = CONFIG_MAPPING[model_type]
    vision = CONFIG_MAPPING["timm_wrapper"](architecture=architecture, model_args=arguments or None, do_pooling=False)
    vision.hidden_size = width
    ids = {"image_token_index": 3} if model_type == "fast_vlm" else {"image_token_id": 3, "video_token_id": 4}
    return cls(text_config=shrunk(cls().text_config), vision_config=vision, **ids)


#: model types whose default config cannot be made, or whose parts must fit each other
BY_HAND = {
    "dbrx": _dbrx,
    "dots3_note": _dots3_note,
    "dots3_note_text": _dots3_note_text,
    "gemma4_assistant": lambda: _assistant(
        "gemma4", hidden_size_per_layer_input=0, vocab_size_per_layer_input=0, num_kv_shared_layers=2
    ),
    "gemma4_unified_assistant": lambda: _assistant("gemma4_unified", **SHARED_KEYS),
    "qwen4_exp": _qwen4_exp,
    "qwen4_exp_text": _qwen4_exp_text,
    "musicgen": lambda: shrunk(CONFIG_MAPPING["musicgen"]().decoder),
    "musicgen_melody": lambda: shrunk(CONFIG_MAPPING["musicgen_melody"]().decoder),
    "fast_vlm": lambda: _with_timm("fast_vlm", "fastvit_t8", 768, inference_mode=True),
    "perception_lm": lambda: _with_timm("perception_lm", "vit_pe_core_tiny_patch16_384", 192, embed_dim=192),
}


def tiny_config(model_type: str) -> Any:
    """Return the tiny config of a model type."""
    config = BY_HAND[model_type]() if model_type in BY_HAND else shrunk(CONFIG_MAPPING[model_type](), model_type)
    for part in (config, config.get_text_config()):  # training scripts set these ids
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = 0
        if config.is_encoder_decoder and getattr(part, "decoder_start_token_id", None) is None:
            part.decoder_start_token_id = 1
    return config
