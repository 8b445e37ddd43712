"""Every class of transformers' auto mappings, tiny: with random weights, or on the meta device.

    python -m benchmarks.truth.architectures [--task TASK]        which can be built, and how many

Rules shrink a config. A name that means a size gets a small one, and a list with an item for each layer keeps one layer
of each kind. ``EXCEPTIONS`` holds only values that no rule can know: sums that must match, defaults that are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import re
import sys
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils import logging

#: the tasks of most fine-tuning: task -> the Auto class whose mapping lists its architectures
COMMON = {
    "causal-lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "image-text-to-text": "AutoModelForImageTextToText",
    "sequence-classification": "AutoModelForSequenceClassification",
}


def _further() -> dict[str, str]:
    """Return the tasks of the other Auto classes of transformers. Heads come first, bare models and backbones last."""
    names = [name for name in dir(transformers) if re.match(r"AutoModelFor|AutoBackbone$|AutoModel$", name)]
    names.sort(key=lambda name: not name.startswith("AutoModelFor"))
    return {_task(name): name for name in names if name not in COMMON.values()}


def _task(auto: str) -> str:
    """Return the name of an Auto class's task: ``object-detection`` for ``AutoModelForObjectDetection``."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+(?:2[A-Z][a-z]+)?", auto.removeprefix("Auto").removeprefix("ModelFor"))
    return "-".join(words).lower()


#: task -> the Auto class whose mapping lists its architectures
TASKS = COMMON | _further()

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
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
#: numbers of heads that stay below the number of query heads if the default is below it
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
#: values for attributes that are None by default although the model needs a number
_NEEDED = {
    "vocab_size": VOCABULARY,
    "head_dim": HEAD_SIZE,
    "num_key_value_heads": HEADS // 2,
    "num_global_key_value_heads": HEADS // 2,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
}
_TOKEN_ID = ("_token_id", "_token_index", "_token_ids")
#: token ids from this one on are replaced, as they may not fit a tiny vocabulary
_SMALL_ID = 20

_ROPE = {"rope_type": "default", "rope_theta": 1e4}
#: marks an attribute that keeps its default, in spite of the rules
LEFT_OUT = object()
_SLIDING = ["sliding_attention", "full_attention"]
#: what a backbone with several outputs keeps
_STAGES = ("depths", "num_heads", "window_size")
_SWIN = {"depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
_SHARED_KEYS = {"num_hidden_layers": 4, "layer_types": _SLIDING * 2, "num_kv_shared_layers": 2}


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
        **_SHARED_KEYS,
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


@functools.cache
def architectures(task: str) -> list[str]:
    """Return the model types of a task, sorted. Beyond the common tasks, a class counts for the first task that lists it."""
    mapping = _mapping(task)
    if task in COMMON:
        return sorted(mapping)
    earlier = {name for other in list(TASKS)[: list(TASKS).index(task)] for name in _mapping(other).values()}
    own: dict[str, str] = {}
    for model_type in sorted(mapping):
        if mapping[model_type] not in earlier:
            own.setdefault(mapping[model_type], model_type)
    return sorted(own.values())


def model_class(task: str, model_type: str) -> Any:
    """Return the class that the task's Auto class uses for a model type."""
    return getattr(transformers, _mapping(task)[model_type])


def _mapping(task: str) -> dict[str, str]:
    names = getattr(transformers, TASKS[task])._model_mapping._model_mapping  # noqa: SLF001  # the names alone, as the public mapping imports 200 modules
    return {kind: name if isinstance(name, str) else name[0] for kind, name in names.items()}


def build(task: str, model_type: str, device: str = "cpu") -> Any:
    """Return a tiny bfloat16 model: on the CPU with the same random weights each time, on meta without weights."""
    cls = model_class(task, model_type)
    config = config_for(task, model_type)
    if device == "meta":
        with torch.device("meta"):
            return cls._from_config(config, dtype=torch.bfloat16)
    torch.manual_seed(0)
    with _marked_memory():
        model = cls._from_config(config, dtype=torch.bfloat16)
    _as_if_trained(model)
    return model


def config_for(task: str, model_type: str) -> Any:
    """Return the tiny config of the task's class. A text-only class gets the text part of a composite config."""
    cls, config = model_class(task, model_type), tiny_config(model_type)
    wanted = cls.config_class
    if not isinstance(config, wanted):
        parts = (getattr(config, name) for name in ("text_config", "decoder", "thinker_config") if hasattr(config, name))
        config = next((part for part in parts if isinstance(part, wanted)), config)
    config.architectures = [cls.__name__]
    return config


@contextlib.contextmanager
def _marked_memory() -> Any:
    """Make torch fill uninitialised memory with NaN, so that ``_as_if_trained`` finds it."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@torch.no_grad()
def _as_if_trained(model: Any) -> None:
    """Replace values that no trained model has: uninitialised memory, and weights that are zero throughout.

    A gate of zero makes the gradient of every adapter behind it exactly zero, which would look like a fault.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and not (parameter.isfinite().all() and parameter.any()):
            parameter.normal_(std=0.02)
    for buffer in model.buffers():
        if buffer.is_floating_point() and buffer.isnan().any():
            buffer.zero_()


def tiny_config(model_type: str) -> Any:
    """Return the tiny config of a model type."""
    config = BY_HAND[model_type]() if model_type in BY_HAND else shrunk(CONFIG_MAPPING[model_type](), model_type)
    for part in (config, config.get_text_config()):  # training scripts set these ids
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = 0
        if config.is_encoder_decoder and getattr(part, "decoder_start_token_id", None) is None:
            part.decoder_start_token_id = 1
    return config


def shrunk(config: Any, model_type: str = "", further: dict[str, Any] | None = None) -> Any:
    """Return a config of the same class with small sizes."""
    cls = type(config)
    changes: dict[str, Any] = {}
    for key in (cls.__name__, getattr(cls, "model_type", ""), model_type):
        changes |= EXCEPTIONS.get(key, {})
    changes |= further or {}
    here = {name: value for name, value in changes.items() if "." not in name}
    values = _values(config)
    outputs = _outputs(config, values)
    if outputs:  # a backbone, whose further values its model relies on
        here = {name: value for name, value in here.items() if name not in _STAGES}
        made = dict(values)
    else:
        made = {}
    made |= _small(values) | outputs | _small_parts(values, changes) | here
    return cls(**{name: value for name, value in made.items() if value is not LEFT_OUT})


def _outputs(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs of a backbone that gives several, and the layers that they need."""
    indices = list(getattr(config, "out_indices", None) or ())
    if len(indices) < 2:
        return {}
    if "num_hidden_layers" not in values:
        return {"out_indices": indices}
    return {"num_hidden_layers": len(indices), "out_indices": list(range(1, len(indices) + 1))}


def _values(config: Any) -> dict[str, Any]:
    """Return the constructor arguments that make the config again."""
    found: dict[str, Any] = {}
    for name in _fields(type(config)):
        with contextlib.suppress(Exception):  # a config that differs by layer raises for one value of all layers
            found[name] = vars(config)[name] if name in vars(config) else getattr(config, name)
    return found


def _small_parts(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _resnet(value)
        if value.model_type == "timm_backbone"
        else shrunk(value, further={key.partition(".")[2]: item for key, item in changes.items() if key.startswith(f"{name}.")})
        for name, value in values.items()
        if isinstance(value, PreTrainedConfig)
    }


def _resnet(timm: Any) -> Any:
    """Return a small ResNet of transformers in place of a backbone of timm, which needs a further library."""
    count = len(list(getattr(timm, "out_indices", None) or [4]))
    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 16, 32, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=[f"stage{index}" for index in range(5 - count, 5)],
    )


def _small(values: dict[str, Any]) -> dict[str, Any]:
    """Return small values for the attributes that the rules know by name."""
    lists = _lists_by_layer(values)
    chosen = _one_of_each_kind(list(lists.values())) if lists else list(range(LAYERS))
    made: dict[str, Any] = {name: _of_layers(name, value, chosen) for name, value in lists.items()}
    # a layer that is dropped at random would look like a fault
    made |= {name: 0.0 for name in values if name.endswith("layerdrop")}
    made |= {name: needed for name, needed in _NEEDED.items() if name in values and values[name] is None}
    made |= {name: list(values[name]) for name in ("hidden_sizes", "embed_dim") if isinstance(values.get(name), tuple)}
    made |= {name: [1] * len(values[name]) for name in ("depths",) if isinstance(values.get(name), (tuple, list))}
    free_id = 3
    for name, value in values.items():
        if name in made or value is None or isinstance(value, (bool, PreTrainedConfig)):
            continue
        if name in SIZES:
            small = _small_size(name, value, values.get("num_attention_heads"), len(chosen))
            if small is not None:
                made[name] = small
        elif name.endswith(_TOKEN_ID):
            if isinstance(value, int) and value >= _SMALL_ID:
                made[name], free_id = free_id, free_id + 1
            elif isinstance(value, (list, tuple)) and value:
                made[name] = [2]
    return made


def _small_size(name: str, value: Any, heads: Any, layers: int) -> Any:
    """Return a size for one attribute, or None if its value is no size."""
    size = layers if name in (*_LAYER_COUNTS, "max_window_layers") else SIZES[name]
    if isinstance(value, int):
        if name in _KEY_VALUE_HEADS:
            return HEADS if value == heads else min(value, HEADS // 2)
        return min(value, size)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, int) for item in value):
        if size == HEADS:  # stages whose widths are powers of two
            return [1 << (min(item, size).bit_length() - 1) for item in value]
        return [min(item, size) for item in value]
    return None


@functools.cache
def _fields(cls: Any) -> tuple[str, ...]:
    """Return the arguments of the constructors of a config class and its bases."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        names |= dict.fromkeys(inspect.get_annotations(base))
        with contextlib.suppress(TypeError, ValueError):
            names |= dict.fromkeys(inspect.signature(base.__init__).parameters)
    left_out = {"self", "args", "kwargs", "id2label", "label2id", "dtype", "transformers_version"}
    return tuple(name for name in names if name not in left_out and not name.startswith("_"))


def _lists_by_layer(values: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the lists with one item for each layer."""
    count = next((value for name in _LAYER_COUNTS if isinstance(value := values.get(name), int)), 0)
    if count <= 1:
        return {}
    return {
        name: list(value)
        for name, value in values.items()
        if isinstance(value, (list, tuple)) and len(value) == count and not name.endswith(_TOKEN_ID)
    }


def _one_of_each_kind(lists: list[list[Any]]) -> list[int]:
    """Return few layers (chosen greedily) that show every value of every list, at least ``LAYERS`` of them."""
    rows = list(zip(*([repr(item) for item in values] for values in lists), strict=True))
    missing = {(column, item) for row in rows for column, item in enumerate(row)}
    if len(missing) > 8 * len(lists):  # values that differ from layer to layer are no kinds
        return list(range(min(LAYERS, len(rows))))
    chosen: list[int] = []
    while missing:
        best = max(range(len(rows)), key=lambda index: (len(missing & set(enumerate(rows[index]))), -index))
        missing -= set(enumerate(rows[best]))
        chosen.append(best)
    others = (index for index in range(len(rows)) if index not in chosen)
    while len(chosen) < min(LAYERS, len(rows)):
        chosen.append(next(others))
    return sorted(chosen)


def _of_layers(name: str, values: list[Any], chosen: list[int]) -> list[Any]:
    """Return the items of the chosen layers, with small sizes and renumbered layer indices."""
    kept = [values[index] for index in chosen]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in kept) or max(kept) <= 1:
        return kept
    size = SIZES.get(name.removesuffix("_per_layer").removesuffix("s"))
    if size is not None:
        return [min(value, size) for value in kept]
    return list(range(len(kept))) if kept == sorted(set(kept)) else kept


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
    "gemma4_unified_assistant": lambda: _assistant("gemma4_unified", **_SHARED_KEYS),
    "qwen4_exp": _qwen4_exp,
    "qwen4_exp_text": _qwen4_exp_text,
    "musicgen": lambda: shrunk(CONFIG_MAPPING["musicgen"]().decoder),
    "musicgen_melody": lambda: shrunk(CONFIG_MAPPING["musicgen_melody"]().decoder),
    "fast_vlm": lambda: _with_timm("fast_vlm", "fastvit_t8", 768, inference_mode=True),
    "perception_lm": lambda: _with_timm("perception_lm", "vit_pe_core_tiny_patch16_384", 192, embed_dim=192),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, help="one task only")
    options = parser.parse_args()
    logging.set_verbosity_error()
    missed = 0
    for task in [options.task] if options.task else TASKS:
        names = architectures(task)
        failed = 0
        for model_type in names:
            try:
                build(task, model_type, "meta")
            except Exception as error:  # noqa: BLE001  # any error of a constructor is a result
                failed += 1
                print(f"{task} {model_type}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
        print(f"{task}: {len(names) - failed} of {len(names)} architectures can be built", flush=True)
        missed += failed
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
