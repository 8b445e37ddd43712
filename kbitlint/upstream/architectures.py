"""Names of modules in the architectures of transformers 5, one row each: what a script's patterns can match.

``tests/source/test_checkpoint_families.py`` builds each architecture on the meta device and compares its names with the row.
A release of transformers that renames a module fails that test.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from kbitlint.upstream.encoder_names import ENCODERS


class Architecture(NamedTuple):  # a hundred tuples are made in a fifth of the time of data classes
    """The linear layers, the parts and the stacked experts of one model type."""

    linears: str
    """The last parts of the names of linear layers, without the output head; separated by blanks."""
    parts: str = "lm_head model.layers"
    """The first one or two parts of these layers' names, which a pattern of ``llm_int8_skip_modules`` has to start with.

    Empty if they depend on the class that loads the checkpoint.
    """
    experts: str = ""
    """The last parts of the names of the stacked experts' parameters; empty without experts."""
    renames: str = ""
    """The row of PEFT 0.21 that turns old names of experts into ``target_parameters``; empty if there is none."""
    more: str = ""
    """Names of linear layers that only some checkpoints of the type have."""

    @property
    def names(self) -> frozenset[str]:
        """Return every name that ``target_modules`` can match as a linear layer."""
        return frozenset(f"{self.linears} {self.more}".split())


#: peft/utils/transformers_weight_conversion.py, ``_MOE_TARGET_MODULE_MAPPING`` without the router: old names of experts
EXPERT_PROJECTIONS = {"mixtral": ("w1", "w2", "w3"), "qwen2_moe": ("gate_proj", "up_proj", "down_proj")}
#: names that PEFT 0.21 refuses one without the other: they are fused into one parameter
FUSED_PAIRS = {"mixtral": ("w1", "w3"), "qwen2_moe": ("gate_proj", "up_proj")}
#: names of linear layers in code that came with a checkpoint and that transformers has replaced by a class of its own
OLD_NAMES = frozenset(
    {"Wqkv", "W_pack", "wqkv", "c_attn", "query_key_value", "out_proj", "fc_in", "fc_out", "dense", "fc1", "fc2"}
)

#: model types whose linear layers have the same names in transformers 4 (modeling files of 4.38 and 4.57)
NAMED_ALIKE = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "gpt_neox", "opt", "bloom", "falcon", "gpt2", "gptj"}
)

_ATTENTION = "q_proj k_proj v_proj o_proj"
_LLAMA = f"{_ATTENTION} gate_proj up_proj down_proj"
_NEOX = "query_key_value dense dense_h_to_4h dense_4h_to_h"
_GPT2 = "c_attn c_fc c_proj"
_FUSED = "gate_up_proj down_proj"
_LLAVA = "lm_head model.language_model model.multi_modal_projector model.vision_tower"
_VISUAL = "lm_head model.language_model model.visual"
_IDEFICS = "lm_head model.connector model.text_model model.vision_model"

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(_LLAMA),
    "mistral": Architecture(_LLAMA),
    "mixtral": Architecture(_ATTENTION, experts=_FUSED, renames="mixtral"),
    "ministral3": Architecture(_LLAMA),
    "mistral3": Architecture(
        "down_proj gate_proj k_proj linear_1 linear_2 merging_layer o_proj q_proj up_proj v_proj", parts=_LLAVA
    ),
    "mistral4": Architecture(
        "down_proj gate_proj kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj up_proj", experts=_FUSED
    ),
    "qwen2": Architecture(_LLAMA),
    "qwen2_moe": Architecture(
        "down_proj gate_proj k_proj o_proj q_proj shared_expert_gate up_proj v_proj", experts=_FUSED, renames="qwen2_moe"
    ),
    "qwen3": Architecture(_LLAMA),
    "qwen3_moe": Architecture(_ATTENTION, experts=_FUSED, renames="qwen2_moe"),
    "qwen3_next": Architecture(
        "down_proj gate_proj in_proj_ba in_proj_qkvz k_proj o_proj out_proj q_proj shared_expert_gate up_proj v_proj",
        experts=_FUSED,
        renames="qwen2_moe",
    ),
    "qwen3_5": Architecture(
        (
            "down_proj gate_proj in_proj_a in_proj_b in_proj_qkv in_proj_z k_proj linear_fc1 "
            "linear_fc2 o_proj out_proj proj q_proj qkv up_proj v_proj"
        ),
        parts=_VISUAL,
    ),
    "qwen3_5_moe": Architecture(
        (
            "down_proj gate_proj in_proj_a in_proj_b in_proj_qkv in_proj_z k_proj linear_fc1 "
            "linear_fc2 o_proj out_proj proj q_proj qkv shared_expert_gate up_proj v_proj"
        ),
        parts=_VISUAL,
        experts=_FUSED,
    ),
    "gemma": Architecture(_LLAMA),
    "gemma2": Architecture(_LLAMA),
    "gemma3_text": Architecture(_LLAMA),
    "gemma3": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj o_proj out_proj q_proj up_proj v_proj",
        parts="lm_head model.language_model model.vision_tower",
    ),
    "gemma4": Architecture(
        (
            "down_proj gate_proj k_proj o_proj per_layer_input_gate "
            "per_layer_model_projection per_layer_projection q_proj up_proj v_proj"
        ),
        parts="lm_head model.language_model",
    ),
    "gemma4_text": Architecture(
        (
            "down_proj gate_proj k_proj o_proj per_layer_input_gate "
            "per_layer_model_projection per_layer_projection q_proj up_proj v_proj"
        ),
        parts="lm_head model.layers model.per_layer_model_projection",
    ),
    "vaultgemma": Architecture(_LLAMA),
    "recurrent_gemma": Architecture("down_proj gate_proj k_proj linear_out linear_x linear_y o_proj q_proj up_proj v_proj"),
    "phi": Architecture("dense fc1 fc2 k_proj q_proj v_proj"),
    "phi3": Architecture("down_proj gate_up_proj o_proj qkv_proj"),
    "phimoe": Architecture("k_proj o_proj q_proj router v_proj", experts=_FUSED),
    "falcon": Architecture(_NEOX, parts="lm_head transformer.h"),
    "falcon_mamba": Architecture("dt_proj in_proj out_proj x_proj", parts="backbone.layers lm_head"),
    "mpt": Architecture("Wqkv down_proj out_proj up_proj", parts="lm_head transformer.blocks"),
    "gpt2": Architecture(_GPT2, parts="lm_head transformer.h"),
    "gpt_neo": Architecture("c_fc c_proj k_proj out_proj q_proj v_proj", parts="lm_head transformer.h"),
    "gpt_neox": Architecture(_NEOX, parts="gpt_neox.layers lm_head"),
    "gptj": Architecture("fc_in fc_out k_proj out_proj q_proj v_proj", parts="lm_head transformer.h"),
    "gpt_bigcode": Architecture(_GPT2, parts="lm_head transformer.h"),
    "opt": Architecture("fc1 fc2 k_proj out_proj q_proj v_proj", parts="lm_head model.decoder"),
    "bloom": Architecture(_NEOX, parts="lm_head transformer.h"),
    "codegen": Architecture("fc_in fc_out out_proj qkv_proj", parts="lm_head transformer.h"),
    "starcoder2": Architecture("c_fc c_proj k_proj o_proj q_proj v_proj"),
    "stablelm": Architecture(_LLAMA),
    "cohere": Architecture(_LLAMA),
    "cohere2": Architecture(_LLAMA),
    "cohere2_moe": Architecture(_ATTENTION, experts=_FUSED, renames="qwen2_moe"),
    "olmo": Architecture(_LLAMA),
    "olmo2": Architecture(_LLAMA),
    "olmo3": Architecture(_LLAMA),
    "olmoe": Architecture(_ATTENTION, experts=_FUSED, renames="qwen2_moe"),
    "flex_olmo": Architecture(_ATTENTION, experts=_FUSED, renames="qwen2_moe"),
    "jamba": Architecture(
        "down_proj dt_proj gate_proj in_proj k_proj o_proj out_proj q_proj up_proj v_proj x_proj", experts=_FUSED
    ),
    "mamba": Architecture("dt_proj in_proj out_proj x_proj", parts="backbone.layers lm_head"),
    "mamba2": Architecture("in_proj out_proj", parts="backbone.layers lm_head"),
    "deepseek_v2": Architecture(
        "down_proj gate_proj kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj up_proj",
        experts=_FUSED,
        renames="qwen2_moe",
        more="q_proj",
    ),
    "deepseek_v3": Architecture(
        "down_proj gate_proj kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj up_proj",
        experts=_FUSED,
        renames="qwen2_moe",
        more="q_proj",
    ),
    "granite": Architecture(_LLAMA),
    "granitemoe": Architecture(_ATTENTION, experts=_FUSED),
    "granitemoeshared": Architecture(_ATTENTION, experts=_FUSED),
    "granitemoehybrid": Architecture("in_proj input_linear out_proj output_linear", experts=_FUSED),
    "nemotron_h": Architecture("down_proj in_proj k_proj o_proj out_proj q_proj up_proj v_proj", experts="down_proj up_proj"),
    "glm": Architecture("down_proj gate_up_proj k_proj o_proj q_proj v_proj"),
    "glm4": Architecture("down_proj gate_up_proj k_proj o_proj q_proj v_proj"),
    "glm4_moe": Architecture(_LLAMA, experts=_FUSED, renames="qwen2_moe"),
    "glm4v": Architecture("down_proj gate_proj gate_up_proj k_proj o_proj proj q_proj qkv up_proj v_proj", parts=_VISUAL),
    "glm4v_moe": Architecture(
        "down_proj gate_proj k_proj o_proj proj q_proj qkv up_proj v_proj", parts=_VISUAL, experts=_FUSED, renames="qwen2_moe"
    ),
    "gpt_oss": Architecture(_ATTENTION, experts=_FUSED),
    "llama4": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj linear linear_1 o_proj q_proj router up_proj v_proj",
        parts=(
            "language_model.lm_head language_model.model multi_modal_projector.linear_1 "
            "vision_model.model vision_model.patch_embedding vision_model.vision_adapter"
        ),
        experts=_FUSED,
    ),
    "llama4_text": Architecture("down_proj gate_proj k_proj o_proj q_proj router up_proj v_proj", experts=_FUSED),
    "ernie4_5": Architecture(_LLAMA),
    "ernie4_5_moe": Architecture(_LLAMA, experts=_FUSED, renames="qwen2_moe"),
    "smollm3": Architecture(_LLAMA),
    "minimax": Architecture("k_proj o_proj out_proj output_gate q_proj qkv_proj v_proj", experts=_FUSED, renames="mixtral"),
    "minimax_m2": Architecture(_ATTENTION, experts=_FUSED, renames="mixtral"),
    "exaone4": Architecture(_LLAMA),
    "arcee": Architecture("down_proj k_proj o_proj q_proj up_proj v_proj"),
    "bitnet": Architecture(_LLAMA),
    "apertus": Architecture("down_proj k_proj o_proj q_proj up_proj v_proj"),
    "lfm2": Architecture("k_proj out_proj q_proj v_proj w1 w2 w3"),
    "seed_oss": Architecture(_LLAMA),
    "t5": Architecture("k o q v wi wo", parts="decoder.block encoder.block lm_head"),
    "mt5": Architecture("k o q v wi_0 wi_1 wo", parts="decoder.block encoder.block lm_head"),
    "umt5": Architecture("k o q v wi_0 wi_1 wo", parts="decoder.block encoder.block lm_head"),
    "m2m_100": Architecture("fc1 fc2 k_proj out_proj q_proj v_proj", parts="lm_head model.decoder model.encoder"),
    "qwen2_vl": Architecture("down_proj fc1 fc2 gate_proj k_proj o_proj proj q_proj qkv up_proj v_proj", parts=_VISUAL),
    "qwen2_5_vl": Architecture("down_proj gate_proj k_proj o_proj proj q_proj qkv up_proj v_proj", parts=_VISUAL),
    "qwen3_vl": Architecture(
        "down_proj gate_proj k_proj linear_fc1 linear_fc2 o_proj proj q_proj qkv up_proj v_proj", parts=_VISUAL
    ),
    "qwen3_vl_moe": Architecture("k_proj linear_fc1 linear_fc2 o_proj proj q_proj qkv v_proj", parts=_VISUAL, experts=_FUSED),
    "llava": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj linear_1 linear_2 o_proj out_proj q_proj up_proj v_proj", parts=_LLAVA
    ),
    "llava_next": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj linear_1 linear_2 o_proj out_proj q_proj up_proj v_proj", parts=_LLAVA
    ),
    "llava_onevision": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj linear_1 linear_2 o_proj out_proj q_proj up_proj v_proj", parts=_LLAVA
    ),
    "idefics2": Architecture("down_proj fc1 fc2 gate_proj k_proj o_proj out_proj q_proj up_proj v_proj", parts=_IDEFICS),
    "idefics3": Architecture("down_proj fc1 fc2 gate_proj k_proj o_proj out_proj proj q_proj up_proj v_proj", parts=_IDEFICS),
    "smolvlm": Architecture("down_proj fc1 fc2 gate_proj k_proj o_proj out_proj proj q_proj up_proj v_proj", parts=_IDEFICS),
    "paligemma": Architecture("down_proj fc1 fc2 gate_proj k_proj linear o_proj out_proj q_proj up_proj v_proj", parts=_LLAVA),
    "mllama": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj multi_modal_projector o_proj q_proj up_proj v_proj",
        parts="lm_head model.language_model model.multi_modal_projector model.vision_model",
    ),
    "internvl": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj linear_1 linear_2 o_proj projection_layer q_proj up_proj v_proj", parts=_LLAVA
    ),
    "blip-2": Architecture(
        "dense fc1 fc2 k_proj key language_projection out_proj projection q_proj qkv query v_proj value",
        parts="language_model.lm_head language_model.model language_projection qformer.encoder vision_model.encoder",
    ),
    "florence2": Architecture("fc1 fc2 image_projection k_proj out_proj proj q_proj qkv v_proj", parts=_LLAVA),
    "jetmoe": Architecture("kv_proj", experts="input_linear output_linear"),
    "modernbert": Architecture("Wi Wo Wqkv classifier dense", parts="classifier head.dense model.layers"),
    "deberta-v2": Architecture(
        "classifier dense key_proj query_proj value_proj", parts="classifier deberta.encoder pooler.dense"
    ),
    "distilbert": Architecture(
        "classifier k_lin lin1 lin2 out_lin pre_classifier q_lin v_lin",
        parts="classifier distilbert.transformer pre_classifier",
    ),
    "helium": Architecture(_LLAMA),
    "zamba2": Architecture("down_proj gate_up_proj in_proj k_proj linear o_proj out_proj q_proj v_proj"),
    "longcat_flash": Architecture(
        "classifier down_proj gate_proj kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj up_proj",
        experts=_FUSED,
        renames="qwen2_moe",
    ),
    "cwm": Architecture(_LLAMA),
    "doge": Architecture("down_proj dt_proj gate_proj k_proj o_proj q_proj up_proj v_proj"),
    "afmoe": Architecture("down_proj gate gate_proj k_proj o_proj q_proj up_proj v_proj", experts=_FUSED, renames="qwen2_moe"),
    "solar_open": Architecture(_LLAMA, experts=_FUSED, renames="qwen2_moe"),
    "persimmon": Architecture(_NEOX),
    "rwkv": Architecture("head key output receptance value", parts="head rwkv.blocks"),
    "cohere2_vision": Architecture(
        "down_proj fc1 fc2 gate_proj k_proj linear_1 linear_2 o_proj out_proj q_proj up_proj v_proj", parts=_LLAVA
    ),
    "kimi_k25": Architecture(
        (
            "down_proj fc1 fc2 gate_proj in_proj k_proj kv_a_proj_with_mqa kv_b_proj "
            "o_proj out_proj proj q_a_proj q_b_proj q_proj up_proj v_proj"
        ),
        parts="lm_head model.language_model model.mm_projector model.vision_tower",
        experts=_FUSED,
    ),
    "instructblip": Architecture(
        "dense fc1 fc2 k_proj key language_projection out_proj projection q_proj qkv query v_proj value",
        parts="language_model.lm_head language_model.model language_projection qformer.encoder vision_model.encoder",
    ),
}

ARCHITECTURES |= {kind: Architecture(linears, "", more=more) for kind, linears, more in ENCODERS}


@functools.cache
def every_name() -> frozenset[str]:
    """Return the names of linear layers of all architectures, and of code that they replace."""
    return frozenset(name for row in ARCHITECTURES.values() for name in row.names) | OLD_NAMES


#: linear layers inside of blocks, of which no model has one at its top
INNER_LINEARS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj", "out_proj"),
    *("query_key_value", "c_attn", "c_proj", "Wqkv", "dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2", "query", "value"),
)
