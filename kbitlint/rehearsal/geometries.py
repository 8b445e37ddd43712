"""The shapes of well-known architectures: configs by their sizes, as the families of ``families.py`` use them."""

from __future__ import annotations

from typing import Any


def llama(hidden: int, inner: int, layers: int, heads: int, shared: int, rows: int, **more: Any) -> dict[str, Any]:
    """Return the config of a Llama-like decoder. ``shared`` is the number of key and value heads."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "vocab_size": rows,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
        **more,
    }


THREE = {"max_position_embeddings": 131072, "bos_token_id": 128000, "eos_token_id": 128001, "rope_theta": 500000.0}


def like(kind: str, head: str, *sizes: int, **more: Any) -> dict[str, Any]:
    """Return the config of a decoder with the keys of Llama's and a model type of its own."""
    return llama(*sizes, **{"model_type": kind, "architectures": [head], **more})  # type: ignore[misc,arg-type]  # six sizes


def qwen2(*sizes: int, tied: bool = False) -> dict[str, Any]:
    """Return the config of a Qwen2 or Qwen2.5 decoder; the sizes are those of ``llama``."""
    ids = {"bos_token_id": 151643, "eos_token_id": 151643, "max_position_embeddings": 32768}
    return like("qwen2", "Qwen2ForCausalLM", *sizes, tie_word_embeddings=tied, **ids)


def qwen3(*sizes: int, tied: bool = False) -> dict[str, Any]:
    """Return the config of a Qwen3 decoder; the sizes are those of ``llama``."""
    ids = {"bos_token_id": 151643, "eos_token_id": 151645, "max_position_embeddings": 40960, "head_dim": 128}
    return like("qwen3", "Qwen3ForCausalLM", *sizes, tie_word_embeddings=tied, **ids)


def gpt2(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Return the config of a GPT-2."""
    made = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": width, "n_layer": layers, "n_head": heads}
    return {**made, "vocab_size": 50257, "n_positions": 1024}


def opt(width: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """Return the config of an OPT."""
    made = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "hidden_size": width, "ffn_dim": inner}
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": 50272, "word_embed_proj_dim": width}
    return {**made, **sizes, "max_position_embeddings": 2048, "do_layer_norm_before": True, "dtype": "float16"}


def neox(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Return the config of a GPT-NeoX, such as those of Pythia."""
    made = {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_size": width, "dtype": "float16"}
    sizes = {"intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**made, **sizes, "vocab_size": 50304, "max_position_embeddings": 2048, "rotary_pct": 0.25}


def bloom(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Return the config of a BLOOM."""
    made = {"model_type": "bloom", "architectures": ["BloomForCausalLM"], "hidden_size": width, "n_layer": layers}
    return {**made, "n_head": heads, "vocab_size": 250880, "dtype": "float16"}


def bert(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Return the config of a BERT."""
    made = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": width, "num_hidden_layers": layers}
    return {**made, "num_attention_heads": heads, "intermediate_size": 4 * width, "vocab_size": 30522}


def roberta(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Return the config of a RoBERTa."""
    made = {**bert(width, layers, heads), "model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}
    return {**made, "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}


def t5(width: int, inner: int, layers: int, heads: int, *, gated: bool) -> dict[str, Any]:
    """Return the config of a T5; Flan-T5 has gated layers."""
    made = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": width, "d_ff": inner}
    sizes = {"num_layers": layers, "num_heads": heads, "vocab_size": 32128, "d_kv": 64, "decoder_start_token_id": 0}
    further = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if gated else {}
    return {**made, **sizes, **further}


PHI3_CONFIG = like(
    "phi3", "Phi3ForCausalLM", 3072, 8192, 32, 32, 32, 32064, pad_token_id=32000, eos_token_id=32000, sliding_window=2047
)
GEMMA_IDS: dict[str, Any] = {
    "head_dim": 256,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
MIXTRAL: dict[str, Any] = {"num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 32768}
