"""Shapes of well-known checkpoints: what the ``config.json`` of a family's sizes holds beside the columns of its row.

``family_rows.py`` has the vocabulary, the hidden sizes, the dtype and the shared head. Source of each shape: the
``config.json`` of the checkpoint that the row names, or of its other size. Only rehearsals and measurements need shapes, so
``checkpoints.py`` alone imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.upstream.families import Known
    from kbitlint.upstream.family import Family

_LLAMA3 = "8b:14336/32/32/8 70b:28672/80/64/8 405b:53248/126/128/8"
_LLAMA2 = "7b:11008/32/32/32 13b:13824/40/40/40 30b:17920/60/52/52 33b:17920/60/52/52 65b:22016/80/64/64 70b:28672/80/64/8"
_QWEN2 = (
    "7b:18944/28/28/4 0.5b:4864/24/14/2 1.5b:8960/28/12/2 3b:11008/36/16/2 "
    "14b:13824/48/40/8 32b:27648/64/40/8 72b:29568/80/64/8"
)
_BERT = "base:3072/12/12 large:4096/24/16"
_T5 = "base:3072/12/12 small:2048/6/8 large:4096/24/16 3b:16384/24/32 11b:65536/24/128 xl:5120/24/32 xxl:10240/24/64"
#: the inner sizes of the gated layers; its smallest one has 8 layers and 6 heads
_FLAN_T5 = {"small": 1024, "base": 2048, "large": 2816, "xl": 5120, "xxl": 10240}

#: words of families -> size: inner size/layers/heads/heads of keys and values. The first size counts where the name has none
SHAPES: dict[str, str] = {
    (
        "llama3.1 meta-llama3.1 llama3 meta-llama3 llama3.3 "
        "llama-guard3 deepseek-r1-distill-llama llama3.1-nemotron tulu3 tulu3.1"
    ): _LLAMA3,
    "hermes2-pro-llama3 hermes2-theta-llama3 hermes3-llama3.1 dolphin2.9-llama3": _LLAMA3,
    "llama3.2": "1b:8192/16/32/8 3b:8192/28/24/8",
    (
        "llama2 llamav2 llama vicuna wizardlm "
        "wizardcoder-python nous-hermes-llama2 orca2 tulu2 stablebeluga elyza-japanese-llama2"
    ): _LLAMA2,
    "platypus2 stable-platypus2 yarn-llama2 llamaguard": _LLAMA2,
    "codellama": "7b:11008/32/32/32 13b:13824/40/40/40 34b:22016/48/64/8 70b:28672/80/64/8",
    "tinyllama": "1.1b:5632/22/32/4",
    "smollm smollm2": "1.7b:8192/24/32/32 135m:1536/30/9/3 360m:2560/32/15/5",
    "smollm3": "3b:11008/36/16/4",
    "yi yi1.5": "6b:11008/32/32/4 9b:11008/48/32/4 34b:20480/60/56/8",
    "solar10.7b": "10.7b:14336/48/32/8",
    "mixtral": "8x7b:14336/32/32/8 8x22b:16384/56/48/8",
    "mistral-nemo": "base:14336/40/32/8 instruct:14336/40/32/8",
    "ministral": "8b:12288/36/32/8",
    "mistral-small24b": "24b:32768/40/32/8",
    (
        "mistral mistral7b-v0.3 zephyr7b zephyr-sft openhermes2.5 "
        "openchat openchat3.5 starling-lm biomistral neural-chat7b mathstral"
    ): "7b:14336/32/32/8",
    "qwen2.5 qwen2 deepseek-r1-distill-qwen seallms-v3": _QWEN2,
    "qwq": "32b:27648/64/40/8",
    "qwen1.5": "7b:11008/32/32/32 0.5b:2816/24/16/16 1.8b:5504/24/16/16 4b:6912/40/20/20 14b:13696/40/40/40",
    "qwen3": "8b:12288/36/32/8 0.6b:3072/28/16/8 1.7b:6144/28/16/8 4b:9728/36/32/8 14b:17408/40/40/8 32b:25600/64/64/8",
    "gemma2 shieldgemma txgemma": "9b:14336/42/16/8 2b:9216/26/8/4 27b:36864/46/32/16",
    "gemma3-1b gemma3-270m": "1b:6912/26/4/1 270m:2048/18/4/1",
    "gemma gemma1.1 codegemma": "7b:24576/28/16/16 2b:16384/18/8/1",
    "phi3 phi3.5": "mini:8192/32/32/32 medium:17920/40/40/10",
    "phi4": "phi4:17920/40/40/10",
    "phi4-mini": "mini:8192/32/24/8",
    "phi2": "phi2:10240/32/32/32",
    "phi1-5 phi1.5 phi1": "phi1:8192/24/32/32",
    "gpt2 distilgpt2 dialogpt": (
        "gpt2:3072/12/12 distilgpt2:3072/6/12 medium:4096/24/16 large:5120/36/20 xl:6400/48/25 small:3072/12/12"
    ),
    "gpt-neox gpt-neoxt": "20b:24576/44/64",
    "pythia": (
        "6.9b:16384/32/32 70m:2048/6/8 160m:3072/12/12 410m:4096/24/16 1b:8192/16/8 1.4b:8192/24/16 "
        "2.8b:10240/32/32 12b:20480/36/40"
    ),
    "dolly-v2": "3b:10240/32/32 7b:16384/32/32 12b:20480/36/40",
    "opt": "6.7b:16384/32/32 125m:3072/12/12 350m:4096/24/16 1.3b:8192/24/32 2.7b:10240/32/32 13b:20480/40/40 30b:28672/48/56",
    "bloom bloomz": "7b1:16384/30/32 560m:4096/24/16 1b1:6144/24/16 1b7:8192/24/16 3b:10240/30/32",
    "falcon": "7b:18176/32/71 40b:32768/60/128 180b:59392/80/232",
    "distilbert": "base:3072/6/12",
    "bert": _BERT,
    "roberta": _BERT,
    "flan-t5": _T5.replace("small:2048/6/8", "small:1024/8/6"),
    "t5": _T5,
}
#: model type -> the class that the checkpoints of decoders name
_HEADS = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "phi": "PhiForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
_LONG = {"max_position_embeddings": 131072, "bos_token_id": 128000, "eos_token_id": 128001, "rope_theta": 500000.0}
_QWEN_IDS = {"bos_token_id": 151643, "eos_token_id": 151643, "max_position_embeddings": 32768}
_GEMMA_IDS = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "head_dim": 256, "max_position_embeddings": 8192}
#: model type -> further keys of its decoders
_OF_TYPE: dict[str, dict[str, Any]] = {
    "mistral": {"max_position_embeddings": 32768, "sliding_window": None},
    "mixtral": {"max_position_embeddings": 32768, "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2": _QWEN_IDS,
    "qwen3": {**_QWEN_IDS, "eos_token_id": 151645, "max_position_embeddings": 40960, "head_dim": 128},
    "gemma": _GEMMA_IDS,
    "gemma2": _GEMMA_IDS,
    "gemma3_text": _GEMMA_IDS,
    "phi3": {"pad_token_id": 32000, "eos_token_id": 32000, "sliding_window": 2047},
    "phi": {"max_position_embeddings": 2048, "partial_rotary_factor": 0.4},
}


#: first word of a family -> what it has otherwise than its model type
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "tinyllama": {"max_position_embeddings": 2048},
    "codellama": {"max_position_embeddings": 16384},
    "mistral-nemo": {"head_dim": 128},
    "pythia": {"vocab_size": 50304},
    "flan-t5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
#: first word of a family and a size -> what the size has otherwise than its family
_OF_SIZE: dict[str, dict[str, Any]] = {
    "pythia 6.9b": {"vocab_size": 50432},
    "pythia 12b": {"vocab_size": 50688},
    "gemma2 27b": {"head_dim": 128},
    **{f"flan-t5 {size}": {"d_ff": inner} for size, inner in _FLAN_T5.items()},
}


def config_of(known: Known) -> tuple[dict[str, Any], bool] | None:
    """Return the content of the ``config.json`` of a checkpoint; None if it is not known.

    With it, return whether the name gives its size and a word whose shapes are here: a row has words of other shapes.

    Args:
        known: What the checkpoint's name tells.
    """
    family = known.family
    if family is None:
        return None
    words = set(family.word.split())
    key, row = next(((key, row) for key, row in SHAPES.items() if words & set(key.split())), ("", ""))
    if not row:
        return None
    shapes = {
        size: [int(one) for one in numbers.split("/")] for size, _, numbers in (item.partition(":") for item in row.split())
    }
    widths = dict(item.split(":") for item in family.hidden.split())
    size = known.size if known.size in shapes else next((size for size in shapes if size in widths), "")
    if not size:
        return None
    kind = family.architecture or family.word
    hidden = int(widths[size])
    make: Callable[..., dict[str, Any]] = _MAKERS.get(kind, _decoder)
    own = make(kind, hidden, *shapes[size])
    config = {"model_type": kind, "vocab_size": family.vocabulary, "dtype": family.dtype, **own}
    tied = family.tied == "*" or size in family.tied.split()
    head = {"tie_word_embeddings": tied} if tied or make is _decoder else {}  # encoders and T5 have their own default
    exact = size == known.size and (not known.word or known.word in key.split())
    return {**config, **head, **_of_size(family, size, config)}, exact


def vocabulary_of(known: Known) -> int:
    """Return the number of rows of a checkpoint's embeddings; 0 if its size and shape are not known exactly."""
    found = config_of(known)
    return int(found[0]["vocab_size"]) if found is not None and found[1] else 0


def _of_size(family: Family, size: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a size or a family has otherwise than the other ones of its row or its model type."""
    word = family.word.split()[0]
    own = {**_OF_FAMILY.get(word, {}), **_OF_SIZE.get(f"{word} {size}", {})}
    if config["model_type"] == "llama" and 128000 < family.vocabulary <= 128300:
        return {**_LONG, "head_dim": 64 if size == "1b" else 128, **own}
    if config["model_type"] == "qwen2" and family.vocabulary == 152064 and size in ("0.5b", "1.5b", "3b"):
        return {"vocab_size": 151936, **own}
    return own


def _decoder(kind: str, hidden: int, inner: int, layers: int, heads: int, shared: int = 0) -> dict[str, Any]:
    """Return the config of a decoder with the keys of Llama's. ``shared`` is the number of key and value heads."""
    head = _HEADS.get(kind)
    return {
        **({"architectures": [head]} if head else {}),
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared or heads,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **_OF_TYPE.get(kind, {}),
    }


def _gpt2(_: str, hidden: int, __: int, layers: int, heads: int) -> dict[str, Any]:
    made = {"architectures": ["GPT2LMHeadModel"], "n_embd": hidden, "n_layer": layers, "n_head": heads}
    return {**made, "n_positions": 1024}


def _opt(_: str, hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    made = {"architectures": ["OPTForCausalLM"], "hidden_size": hidden, "ffn_dim": inner, "num_hidden_layers": layers}
    sizes = {"num_attention_heads": heads, "word_embed_proj_dim": hidden, "max_position_embeddings": 2048}
    if hidden == 512:  # the one with a projection of its embeddings, and norms behind its layers
        return {**made, **sizes, "hidden_size": 1024, "do_layer_norm_before": False}
    return {**made, **sizes, "do_layer_norm_before": True}


def _neox(_: str, hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    made = {"architectures": ["GPTNeoXForCausalLM"], "hidden_size": hidden, "intermediate_size": inner}
    return {
        **made,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
    }


def _bloom(_: str, hidden: int, __: int, layers: int, heads: int) -> dict[str, Any]:
    return {"architectures": ["BloomForCausalLM"], "hidden_size": hidden, "n_layer": layers, "n_head": heads}


def _falcon(_: str, hidden: int, __: int, layers: int, heads: int) -> dict[str, Any]:
    made = {"architectures": ["FalconForCausalLM"], "hidden_size": hidden, "num_hidden_layers": layers}
    grouped = {"new_decoder_architecture": True, "num_kv_heads": 8} if layers > 32 else {}
    return {**made, "num_attention_heads": heads, "multi_query": True, "parallel_attn": True, "bias": False, **grouped}


def _bert(kind: str, hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner}
    if kind == "roberta":
        own = {"architectures": ["RobertaForMaskedLM"], "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
        return {**sizes, **own}
    return {**sizes, "architectures": ["BertForMaskedLM"]}


def _distilbert(_: str, hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "architectures": ["DistilBertForMaskedLM"],
        "dim": hidden,
        "hidden_dim": inner,
        "n_layers": layers,
        "n_heads": heads,
    }


def _t5(_: str, hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    made = {"architectures": ["T5ForConditionalGeneration"], "d_model": hidden, "d_ff": inner, "num_layers": layers}
    return {**made, "num_heads": heads, "d_kv": 128 if hidden == 1024 and inner > 5120 else 64, "decoder_start_token_id": 0}


#: model type -> what makes its config from the hidden size and the shape
_MAKERS: dict[str, Callable[..., dict[str, Any]]] = {
    "gpt2": _gpt2,
    "opt": _opt,
    "gpt_neox": _neox,
    "bloom": _bloom,
    "falcon": _falcon,
    "bert": _bert,
    "roberta": _bert,
    "distilbert": _distilbert,
    "t5": _t5,
}
