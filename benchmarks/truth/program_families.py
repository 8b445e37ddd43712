"""Families of models that generated programs train: a tiny config, the name of a known checkpoint, and the names of modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CAUSAL, CLASSIFIER, SEQ2SEQ = "causal", "classifier", "seq2seq"
TOKENS, MASKED, ANSWERS = "tokens classified", "masked words", "answers"
IMAGES, SPEECH, SOUND = "images classified", "speech", "sound classified"
#: tasks without words as input
UNWORDED = (IMAGES, SPEECH, SOUND)
#: sizes that configs share; one that a config does not know is an attribute without effect
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 256, "max_position_embeddings": 64, "pad_token_id": 0}


@dataclass(frozen=True)
class Family:
    """A family of models."""

    checkpoint: str
    """The name of a known checkpoint."""
    config: dict[str, Any] = field(default_factory=dict)
    """Arguments of the config beside the sizes."""
    some: tuple[str, ...] = ("q_proj", "v_proj", "up_proj")
    """The linear layers that adapters are often attached to."""
    embeddings: str = "embed_tokens"
    head: str = "lm_head"
    tasks: tuple[str, ...] = (CAUSAL, CLASSIFIER)
    layers: str = "num_hidden_layers"
    """The field of the config that counts the layers."""


_GATED = {"num_key_value_heads": 2, "intermediate_size": 128}
_QUERY_KEY_VALUE = ("query_key_value", "dense_h_to_4h")
_ENCODER = (CLASSIFIER, TOKENS, MASKED, ANSWERS)

#: model type -> family
FAMILIES: dict[str, Family] = {
    "llama": Family("meta-llama/Llama-3.2-1B", _GATED),
    "qwen2": Family("Qwen/Qwen2.5-0.5B", _GATED),
    "qwen3": Family("Qwen/Qwen3-0.6B", _GATED | {"head_dim": 16}),
    "mistral": Family("mistralai/Mistral-7B-v0.1", _GATED | {"sliding_window": 8}),
    "gemma": Family("google/gemma-2b", _GATED | {"head_dim": 16}),
    "gemma2": Family("google/gemma-2-2b", _GATED | {"head_dim": 16}),
    "gemma3_text": Family("google/gemma-3-1b-pt", _GATED | {"head_dim": 16}),
    "phi": Family("microsoft/phi-2", {"intermediate_size": 128}, ("q_proj", "v_proj", "fc1")),
    "phi3": Family("microsoft/Phi-3-mini-4k-instruct", _GATED, ("qkv_proj", "gate_up_proj")),
    "olmo2": Family("allenai/OLMo-2-0425-1B", _GATED),
    "stablelm": Family("stabilityai/stablelm-2-1_6b", _GATED),
    "starcoder2": Family("bigcode/starcoder2-3b", _GATED, ("q_proj", "v_proj", "c_fc")),
    "granite": Family("ibm-granite/granite-3.1-2b-base", _GATED, tasks=(CAUSAL,)),
    "smollm3": Family("HuggingFaceTB/SmolLM3-3B", _GATED),
    "mixtral": Family("mistralai/Mixtral-tiny", _GATED | {"num_local_experts": 2}, ("q_proj", "v_proj")),
    "gpt2": Family("openai-community/gpt2", {"n_inner": 128}, ("c_attn", "c_fc"), "wte"),
    "gpt_neo": Family(
        "EleutherAI/gpt-neo-125m",
        {"num_heads": 4, "intermediate_size": 128},
        ("q_proj", "v_proj", "c_fc"),
        "wte",
        layers="num_layers",
    ),
    "gpt_neox": Family("EleutherAI/pythia-160m", {"intermediate_size": 128}, _QUERY_KEY_VALUE, "embed_in", "embed_out"),
    "gptj": Family("EleutherAI/gpt-j-6b", {"rotary_dim": 8}, ("q_proj", "v_proj", "fc_in"), "wte"),
    "opt": Family("facebook/opt-125m", {"ffn_dim": 128, "word_embed_proj_dim": 64}, ("q_proj", "v_proj", "fc1")),
    "falcon": Family("tiiuae/falcon-7b", {"new_decoder_architecture": False}, _QUERY_KEY_VALUE, "word_embeddings"),
    "bloom": Family("bigscience/bloom-560m", {}, _QUERY_KEY_VALUE, "word_embeddings"),
    "bert": Family(
        "google-bert/bert-base-uncased", {"intermediate_size": 128}, ("query", "value"), "word_embeddings", "", _ENCODER
    ),
    "roberta": Family(
        "FacebookAI/roberta-base", {"intermediate_size": 128}, ("query", "value"), "word_embeddings", "", _ENCODER
    ),
    "distilbert": Family(
        "distilbert/distilbert-base-uncased",
        {"hidden_dim": 128},
        ("q_lin", "v_lin"),
        "word_embeddings",
        "",
        _ENCODER,
        "n_layers",
    ),
    "t5": Family(
        "google-t5/t5-small",
        {"d_kv": 16, "d_ff": 128, "num_heads": 4, "decoder_start_token_id": 0},
        ("q", "v"),
        "shared",
        tasks=(SEQ2SEQ,),
        layers="num_layers",
    ),
    "bart": Family(
        "facebook/bart-base",
        {
            **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 128),
            **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
            "decoder_start_token_id": 2,
            "decoder_layers": 1,
        },
        ("q_proj", "v_proj", "fc1"),
        "shared",
        tasks=(SEQ2SEQ,),
        layers="encoder_layers",
    ),
    "vit": Family(
        "google/vit-base-patch16-224",
        {"intermediate_size": 128, "image_size": 32, "patch_size": 8},
        ("q_proj", "v_proj", "fc1"),
        "",
        "classifier",
        (IMAGES,),
    ),
    "dinov2": Family(
        "facebook/dinov2-base", {"image_size": 32, "patch_size": 8}, ("q_proj", "v_proj", "fc1"), "", "classifier", (IMAGES,)
    ),
    "whisper": Family(
        "openai/whisper-tiny",
        {
            "d_model": 64,
            **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 128),
            **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
            **dict.fromkeys(("num_mel_bins", "max_source_positions"), 16),
            "max_target_positions": 32,
            "decoder_start_token_id": 1,
            "decoder_layers": 1,
        },
        ("q_proj", "v_proj", "fc1"),
        "embed_tokens",
        "proj_out",
        (SPEECH,),
        "encoder_layers",
    ),
    "wav2vec2": Family(
        "facebook/wav2vec2-base",
        {
            "intermediate_size": 128,
            **dict.fromkeys(("conv_kernel", "conv_stride"), (8, 8)),
            "num_feat_extract_layers": 2,
            "conv_dim": (32, 32),
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "mask_time_prob": 0.0,
        },
        ("q_proj", "v_proj", "intermediate_dense"),
        "",
        "classifier",
        (SOUND,),
    ),
}
#: task -> (class of transformers, task type of PEFT; empty if PEFT has none)
TASKS = {
    CAUSAL: ("AutoModelForCausalLM", "CAUSAL_LM"),
    CLASSIFIER: ("AutoModelForSequenceClassification", "SEQ_CLS"),
    SEQ2SEQ: ("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
    TOKENS: ("AutoModelForTokenClassification", "TOKEN_CLS"),
    MASKED: ("AutoModelForMaskedLM", ""),
    ANSWERS: ("AutoModelForQuestionAnswering", "QUESTION_ANS"),
    IMAGES: ("AutoModelForImageClassification", ""),
    SPEECH: ("AutoModelForSpeechSeq2Seq", ""),
    SOUND: ("AutoModelForAudioClassification", ""),
}
#: task -> the lines that make its batch. Words hold the invocation tokens 5 and 6
_WORDS = """\
tokens = torch.randint(7, 250, (2, 16))
tokens[:, 4], tokens[:, 5] = 5, 6
batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), %s}"""
_CLASSES = '"labels": torch.tensor([0, 1])'
BATCHES = {
    CAUSAL: _WORDS % '"labels": tokens.clone()',
    SEQ2SEQ: _WORDS % '"labels": tokens.clone()',
    MASKED: _WORDS % '"labels": tokens.clone()',
    CLASSIFIER: _WORDS % _CLASSES,
    TOKENS: _WORDS % '"labels": tokens % 2',
    ANSWERS: _WORDS % '"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])',
    IMAGES: f'batch = {{"pixel_values": torch.randn(2, 3, 32, 32), {_CLASSES}}}',
    SPEECH: 'batch = {"input_features": torch.randn(2, 16, 32), "labels": torch.randint(7, 250, (2, 16))}',
    SOUND: f'batch = {{"input_values": torch.randn(2, 4000), {_CLASSES}}}',
}
