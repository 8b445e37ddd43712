"""Sizes of tiny configs: by the name of an attribute, and what no rule can know, by model type or config class."""

from __future__ import annotations

from typing import Any

HIDDEN, INTERMEDIATE, HEADS, HEAD_SIZE, LAYERS, VOCABULARY = 64, 128, 4, 16, 2, 256

#: size -> the attributes that get it, over all configs of transformers
_NAMES = {
    HIDDEN: """
        hidden_size d_model n_embd emb_dim dim embedding_dim embedding_size embed_dim word_embed_proj_dim d_embed dim_emb
        input_embedding_size out_hidden_size output_hidden_size hidden_dim out_dim projection_dim projection_size
        adapter_in_dim adapter_out_dim vision_output_dim projector_input_dim projector_output_dim attention_hidden_size
        lru_width pronunciation_embed_dim shape_embed_dim text_hidden_size vision_hidden_size audio_hidden_size
        cross_attention_hidden_size encoder_hidden_size decoder_hidden_size backbone_hidden_size hidden_size_global
        output_channels fpn_hidden_size reassemble_hidden_size""",
    INTERMEDIATE: """
        intermediate_size ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim d_ff dff dim_ff n_inner d_inner mlp_dim
        moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size
        intermediate_size_mlp dense_intermediate_size feed_forward_size shared_experts_intermediate_size mlp_hidden_size
        moe_shared_expert_intermediate_size intermediate_size_moe ffn_intermediate_size block_ff_dim feedforward_dim
        moe_ffn_hidden_size max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions
        max_sequence_length""",
    LAYERS: """
        num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers num_encoder_layers
        depth num_blocks conf_num_hidden_layers num_layers_per_stack num_global_layers num_transformer_layers
        max_window_layers num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k top_k_experts
        no_rope_layer_interval global_attn_every_n_layers""",
    HEADS: """
        num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads attention_heads
        num_encoder_attention_heads num_decoder_attention_heads conf_num_attention_heads swa_num_attention_heads
        linear_num_heads linear_num_value_heads linear_num_key_heads index_n_heads index_num_heads
        num_key_value_heads num_kv_heads kv_n_heads swa_num_key_value_heads num_query_groups n_head_kv
        num_experts n_routed_experts num_local_experts moe_num_experts zero_expert_num""",
    HEAD_SIZE: """
        head_dim attention_head_dim d_kv d_head dim_head kv_channels v_head_dim attention_head_size swa_head_dim
        global_head_dim head_size linear_head_dim linear_key_head_dim linear_value_head_dim index_head_dim swa_v_head_dim
        qk_head_dim hidden_size_per_layer_input ple_embed_dim audio_vocab_size codebook_size pronunciation_vocab_size
        shape_vocab_size sliding_window sliding_window_size attention_window_size local_attention window_size
        attention_chunk_size""",
    VOCABULARY: """
        vocab_size vocab_size_per_layer_input decoder_vocab_size text_vocab_size unpadded_vocab_size
        encoder_hash_byte_group_vocab n_token tgt_vocab_size src_vocab_size""",
    32: "q_lora_rank kv_lora_rank o_lora_rank image_size crop_size base_channels",
    8: """
        qk_rope_head_dim qk_nope_head_dim rotary_dim index_topk laurel_rank d_rel hc_lowrank gated_norm_rank adapter_rank
        mamba_chunk_size num_filters""",
    1: """
        n_shared_experts num_shared_experts moe_num_shared_experts topk_group n_group num_expert_group
        num_nextn_predict_layers first_k_dense_replace""",
}
SIZES = {name: size for size, names in _NAMES.items() for name in names.split()}
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
#: numbers of heads that stay below the number of query heads if the default is below it
KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
#: values for attributes that are None by default although the model needs a number
NEEDED = {
    "vocab_size": VOCABULARY,
    "head_dim": HEAD_SIZE,
    "num_key_value_heads": HEADS // 2,
    "num_global_key_value_heads": HEADS // 2,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
}
TOKEN_ID = ("_token_id", "_token_index", "_token_ids")
#: token ids from this one on are replaced, as they may not fit a tiny vocabulary
SMALL_ID = 20

_ROPE = {"rope_type": "default", "rope_theta": 1e4}
#: marks an attribute that keeps its default, in spite of the rules
LEFT_OUT = object()
_SLIDING = ["sliding_attention", "full_attention"]
#: what a backbone with several outputs keeps
STAGES = ("depths", "num_heads", "window_size")
_SWIN = {"depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
SHARED_KEYS = {"num_hidden_layers": 4, "layer_types": _SLIDING * 2, "num_kv_shared_layers": 2}


def _rope(*sections: int, **further: Any) -> dict[str, Any]:
    """Return rotary parameters whose sections (time, height, width) add up to half a head."""
    return {"rope_parameters": {**_ROPE, "mrope_section": list(sections), **further}}


#: model type or config class -> values that the rules cannot know; ``a.b`` is attribute b of sub-config a
EXCEPTIONS: dict[str, dict[str, Any]] = {
    # sums and products that must match
    **dict.fromkeys(
        (
            "qwen2_vl_text",
            "qwen2_5_vl_text",
            "qwen2_5_omni_text",
            "glm4v_text",
            "glm46v_text",
            "glm_ocr_text",
            "glmga_text",
            "paddleocr_vl_text",
        ),
        _rope(2, 3, 3),
    ),
    "glm4v_moe_text": _rope(1, 1, 2, partial_rotary_factor=0.5),
    "hunyuan_vl_text": _rope(2, 2, 2, 2),
    "cosmos3_edge_text": _rope(2, 3, 3, mrope_interleaved=True),
    "CohereCompassTextConfig": {"rope_parameters": dict.fromkeys(_SLIDING, _ROPE), "layer_types": _SLIDING},
    "longcat_flash": {"head_dim": 8},
    "layoutlmv3": {"coordinate_size": 12, "shape_size": 8, "input_size": 32},
    "lilt": {"hidden_size": 96, "max_2d_position_embeddings": 64},
    "luke": {"entity_vocab_size": 32, "entity_emb_size": HIDDEN},
    "mluke": {"entity_vocab_size": 32, "entity_emb_size": HIDDEN},
    "perceiver": {"d_latents": 64, "num_latents": 8, "num_self_attends_per_block": 2, "qk_channels": 64, "v_channels": 64},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 16, "chunk_size": 8},
    "zamba": {
        "num_hidden_layers": 5,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "linear_attention"],
        "attention_head_dim": 32,
        "attention_hidden_size": 128,
        "num_key_value_heads": HEADS,
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": (8, 8),
        "axial_pos_embds_dim": (16, 48),
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
        "num_buckets": 4,
        "max_position_embeddings": 64,
    },
    "cohere2_vision": {"alignment_intermediate_size": 128},
    "granite4_vision": {"deepstack_layer_map": [[0, 0]], "spatial_target_layers": [1], "downsample_rate": "4/8"},
    "nemotron_h_omni": {"vision_config.video_temporal_patch_size": 2},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 6},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 6},
    "qwen2_5_vl_vision": {"window_size": 112},  # at least one patch after merging
    "exaone4_5_vision": {"window_size": 112},
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}},
    "vibevoice_acoustic_tokenizer_encoder": {"depths": [1, 1], "downsampling_ratios": [2]},
    "xlstm": {"chunk_size": 8},
    "molmo2_adapter": {"vision_feature_layer": [1, 0]},
    "ernie4_5_vl_moe_text": {
        **_rope(3, 3, 2),
        "moe_intermediate_size": [32, 32],
        "mlp_layer_types": ["dense", "sparse"],
    },
    "deepseek_ocr2_text": {
        "mlp_layer_types": ["dense", "sparse"],
        "moe_intermediate_size": 32,
        "n_group": 1,
        "topk_group": 1,
    },
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32, "global_head_dim": HEAD_SIZE},
    "gemma4_text": {"global_head_dim": HEAD_SIZE},
    "gemma4_unified_text": {"global_head_dim": HEAD_SIZE},
    "glm5_next_text": {"index_kpool": 4, "index_topk": 8, "qk_rope_head_dim": 0, "head_dim": 0},
    "dpt": {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]},
    "sam": {"vision_config.num_pos_feats": 32},
    "sam_hq": {"vision_config.num_pos_feats": 32},
    "efficientnet": {"hidden_dim": LEFT_OUT},
    "swin": _SWIN,
    "swinv2": _SWIN,
    "donut-swin": _SWIN,
    "maskformer-swin": _SWIN,
    # layers that show every kind
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": LEFT_OUT},
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "lfm2_moe": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "gemma3n_text": {
        **SHARED_KEYS,
        "intermediate_size": INTERMEDIATE,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
        "altup_num_inputs": 2,
    },
    "step3p5": {"sliding_window": 8},
    "step3p7_text": {"sliding_window": 8},
    # ids and vocabularies
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 0, "mask_token_id": 3},
    "esmc": {"vocab_size": VOCABULARY},
    "blip-2": {"image_token_index": 3, "num_query_tokens": 4},
    "instructblip": {"image_token_index": 3, "num_query_tokens": 4},
    "instructblipvideo": {"video_token_index": 3, "num_query_tokens": 4},
    "kosmos-2": {"latent_query_num": 4},
    "chameleon": {"vocabulary_map": {"<image>": 3} | {f"IMGIMG{letter}Z": 10 + i for i, letter in enumerate("ABCD")}},
    "emu3": {"vocabulary_map": {"<image>": 3, "<|extra_200|>": 4} | {f"<|visual token {i:06d}|>": 10 + i for i in range(16)}},
    "xmod": {"default_language": "en_XX"},
}
