"""Well-known checkpoints by name: the configs that their repositories publish, and the special tokens of their tokenizers.

A script names a checkpoint that is not on this machine. Its name alone then says the architecture and its geometry.
Source of each row: the ``config.json`` and ``tokenizer_config.json`` of the family on the Hub.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.geometries import (
    GEMMA_IDS,
    MIXTRAL,
    PHI3_CONFIG,
    THREE,
    bert,
    bloom,
    gpt2,
    like,
    llama,
    neox,
    opt,
    qwen2,
    qwen3,
    roberta,
    t5,
)
from kbitlint.upstream.families import facts_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Words:
    """The special tokens of a family's tokenizer, each with its id."""

    size: int
    """How many tokens the tokenizer knows. The embedding may have more rows."""
    bos: tuple[str, int] | None = None
    eos: tuple[str, int] | None = None
    pad: tuple[str, int] | None = None
    unk: tuple[str, int] | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    """Further special tokens, such as those of classifiers: ``[CLS]``."""
    longest: int = 4096
    """``model_max_length``."""


@dataclass(frozen=True, slots=True)
class Family:
    """One checkpoint, or a family of one geometry."""

    pattern: str
    """A regular expression that is searched in the lower-case name."""
    config: Mapping[str, Any]
    words: Words
    exact: bool = True
    """Whether the config has the checkpoint's geometry; if not, only its architecture is known."""


_LLAMA3 = Words(128256, ("<|begin_of_text|>", 128000), ("<|end_of_text|>", 128001), longest=131072)
_LLAMA2 = Words(32000, ("<s>", 1), ("</s>", 2), None, ("<unk>", 0))
_MISTRAL3 = Words(32768, ("<s>", 1), ("</s>", 2), None, ("<unk>", 0))
_QWEN = Words(
    151665, None, ("<|endoftext|>", 151643), ("<|endoftext|>", 151643), None, {"<|im_start|>": 151644, "<|im_end|>": 151645}
)
_GEMMA = Words(256000, ("<bos>", 2), ("<eos>", 1), ("<pad>", 0), ("<unk>", 3))
_GEMMA3 = Words(262144, ("<bos>", 2), ("<eos>", 1), ("<pad>", 0), ("<unk>", 3))
_GPT2 = Words(50257, ("<|endoftext|>", 50256), ("<|endoftext|>", 50256), None, ("<|endoftext|>", 50256), longest=1024)
_NEOX = Words(50277, ("<|endoftext|>", 0), ("<|endoftext|>", 0), None, ("<|endoftext|>", 0), longest=2048)
_PHI3 = Words(32011, ("<s>", 1), ("<|endoftext|>", 32000), ("<|endoftext|>", 32000), ("<unk>", 0))
_OPT = Words(50265, ("</s>", 2), ("</s>", 2), ("<pad>", 1), ("</s>", 2), longest=2048)
_BLOOM = Words(250680, ("<s>", 1), ("</s>", 2), ("<pad>", 3), ("<unk>", 0), longest=2048)
_FALCON = Words(65024, None, ("<|endoftext|>", 11), None, None, longest=2048)
_BERT = Words(30522, None, None, ("[PAD]", 0), ("[UNK]", 100), {"[CLS]": 101, "[SEP]": 102, "[MASK]": 103}, 512)
_ROBERTA = Words(50265, ("<s>", 0), ("</s>", 2), ("<pad>", 1), ("<unk>", 3), {"<mask>": 50264}, 512)
_T5 = Words(32100, None, ("</s>", 1), ("<pad>", 0), ("<unk>", 2), longest=512)


#: the first row whose pattern is found in the name applies
FAMILIES: tuple[Family, ...] = (
    Family(r"llama-?3\.2-?1b", llama(2048, 8192, 16, 32, 8, 128256, **THREE, tie_word_embeddings=True, head_dim=64), _LLAMA3),
    Family(r"llama-?3\.2-?3b", llama(3072, 8192, 28, 24, 8, 128256, **THREE, tie_word_embeddings=True, head_dim=128), _LLAMA3),
    Family(r"llama-?3(\.\d)?-?70b|llama-3\.3", llama(8192, 28672, 80, 64, 8, 128256, **THREE), _LLAMA3),
    Family(r"llama-?3|deepseek-r1-distill-llama-8b", llama(4096, 14336, 32, 32, 8, 128256, **THREE), _LLAMA3),
    Family(r"tiny-?llama", llama(2048, 5632, 22, 32, 4, 32000, max_position_embeddings=2048), _LLAMA2),
    Family(r"(code)?llama.*70b", llama(8192, 28672, 80, 64, 8, 32000, dtype="float16"), _LLAMA2),
    Family(r"(llama|vicuna).*13b", llama(5120, 13824, 40, 40, 40, 32000, dtype="float16"), _LLAMA2),
    Family(r"codellama", llama(4096, 11008, 32, 32, 32, 32016, max_position_embeddings=16384), _LLAMA2),
    Family(r"llama|vicuna|alpaca-7b|open-?orca", llama(4096, 11008, 32, 32, 32, 32000, dtype="float16"), _LLAMA2),
    Family(
        r"smollm2?-135m",
        llama(576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True),
        Words(49152, ("<|endoftext|>", 0), ("<|endoftext|>", 0), None, ("<|endoftext|>", 0), longest=8192),
    ),
    Family(
        r"smollm2?-360m",
        llama(960, 2560, 32, 15, 5, 49152, tie_word_embeddings=True),
        Words(49152, ("<|endoftext|>", 0), ("<|endoftext|>", 0), None, ("<|endoftext|>", 0), longest=8192),
    ),
    Family(
        r"smollm",
        llama(2048, 8192, 24, 32, 32, 49152, tie_word_embeddings=True),
        Words(49152, ("<|endoftext|>", 0), ("<|endoftext|>", 0), None, ("<|endoftext|>", 0), longest=8192),
    ),
    Family(r"mixtral", like("mixtral", "MixtralForCausalLM", 4096, 14336, 32, 32, 8, 32000, **MIXTRAL), _LLAMA2),
    Family(
        r"mistral-nemo",
        like("mistral", "MistralForCausalLM", 5120, 14336, 40, 32, 8, 131072, head_dim=128),
        Words(131072, ("<s>", 1), ("</s>", 2), None, ("<unk>", 0)),
    ),
    Family(
        r"mistral-7b(-instruct)?-v0\.3",
        like(
            "mistral", "MistralForCausalLM", 4096, 14336, 32, 32, 8, 32768, max_position_embeddings=32768, sliding_window=None
        ),
        _MISTRAL3,
    ),
    Family(
        r"mistral|zephyr|openhermes|openchat",
        like(
            "mistral", "MistralForCausalLM", 4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768, sliding_window=None
        ),
        _LLAMA2,
    ),
    Family(r"qwen(2|2\.5)(-coder)?-0\.5b", qwen2(896, 4864, 24, 14, 2, 151936, tied=True), _QWEN),
    Family(r"qwen(2|2\.5)(-\w+)?-1\.5b|distill-qwen-1\.5b", qwen2(1536, 8960, 28, 12, 2, 151936, tied=True), _QWEN),
    Family(r"qwen(2|2\.5)(-coder)?-3b", qwen2(2048, 11008, 36, 16, 2, 151936, tied=True), _QWEN),
    Family(r"qwen(2|2\.5)(-\w+)?-14b", qwen2(5120, 13824, 48, 40, 8, 152064), _QWEN),
    Family(r"qwen(2|2\.5)(-\w+)?-32b|qwq", qwen2(5120, 27648, 64, 40, 8, 152064), _QWEN),
    Family(r"qwen(2|2\.5)(-\w+)?-72b", qwen2(8192, 29568, 80, 64, 8, 152064), _QWEN),
    Family(r"qwen(2|2\.5)(-coder|-math)?-7b|distill-qwen-7b", qwen2(3584, 18944, 28, 28, 4, 152064), _QWEN),
    Family(r"qwen3-0\.6b", qwen3(1024, 3072, 28, 16, 8, 151936, tied=True), _QWEN),
    Family(r"qwen3-1\.7b", qwen3(2048, 6144, 28, 16, 8, 151936, tied=True), _QWEN),
    Family(r"qwen3-4b", qwen3(2560, 9728, 36, 32, 8, 151936, tied=True), _QWEN),
    Family(r"qwen3-14b", qwen3(5120, 17408, 40, 40, 8, 151936), _QWEN),
    Family(r"qwen3-32b", qwen3(5120, 25600, 64, 64, 8, 151936), _QWEN),
    Family(r"qwen3-8b", qwen3(4096, 12288, 36, 32, 8, 151936), _QWEN),
    Family(r"gemma-?2-?2b", like("gemma2", "Gemma2ForCausalLM", 2304, 9216, 26, 8, 4, 256000, **GEMMA_IDS), _GEMMA),
    Family(r"gemma-?2-?9b", like("gemma2", "Gemma2ForCausalLM", 3584, 14336, 42, 16, 8, 256000, **GEMMA_IDS), _GEMMA),
    Family(r"gemma-?3-?1b", like("gemma3_text", "Gemma3ForCausalLM", 1152, 6912, 26, 4, 1, 262144, **GEMMA_IDS), _GEMMA3),
    Family(r"gemma(-1\.1)?-?7b", like("gemma", "GemmaForCausalLM", 3072, 24576, 28, 16, 16, 256000, **GEMMA_IDS), _GEMMA),
    Family(r"gemma(-1\.1)?-?2b", like("gemma", "GemmaForCausalLM", 2048, 16384, 18, 8, 1, 256000, **GEMMA_IDS), _GEMMA),
    Family(r"phi-?3(\.5)?-mini", PHI3_CONFIG, _PHI3),
    Family(
        r"phi-?2|phi-?1_5",
        like(
            "phi",
            "PhiForCausalLM",
            2560,
            10240,
            32,
            32,
            32,
            51200,
            dtype="float16",
            max_position_embeddings=2048,
            partial_rotary_factor=0.4,
        ),
        Words(50295, ("<|endoftext|>", 50256), ("<|endoftext|>", 50256), None, ("<|endoftext|>", 50256), longest=2048),
    ),
    Family(r"(distil)?gpt2-xl", gpt2(1600, 48, 25), _GPT2),
    Family(r"gpt2-large", gpt2(1280, 36, 20), _GPT2),
    Family(r"gpt2-medium|dialogpt", gpt2(1024, 24, 16), _GPT2),
    Family(r"distilgpt2", gpt2(768, 6, 12), _GPT2),
    Family(r"(^|/)gpt2$", gpt2(768, 12, 12), _GPT2),
    Family(r"opt-125m", opt(768, 3072, 12, 12), _OPT),
    Family(r"opt-1\.3b", opt(2048, 8192, 24, 32), _OPT),
    Family(r"opt-2\.7b", opt(2560, 10240, 32, 32), _OPT),
    Family(r"opt-6\.7b", opt(4096, 16384, 32, 32), _OPT),
    Family(r"bloomz?-560m", bloom(1024, 24, 16), _BLOOM),
    Family(r"bloomz?-1b7", bloom(2048, 24, 16), _BLOOM),
    Family(r"bloomz?-7b1", bloom(4096, 30, 32), _BLOOM),
    Family(r"gpt-neox-20b", {**neox(6144, 44, 64), "vocab_size": 50432}, _NEOX),
    Family(r"pythia-(70m|160m)", neox(768, 12, 12), _NEOX),
    Family(r"pythia-410m", neox(1024, 24, 16), _NEOX),
    Family(r"pythia-1(\.0)?b", neox(2048, 16, 8), _NEOX),
    Family(r"pythia-1\.4b", neox(2048, 24, 16), _NEOX),
    Family(r"pythia-6\.9b", neox(4096, 32, 32), _NEOX),
    Family(
        r"falcon-7b",
        {
            "model_type": "falcon",
            "architectures": ["FalconForCausalLM"],
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "vocab_size": 65024,
            "multi_query": True,
            "parallel_attn": True,
            "bias": False,
            "dtype": "bfloat16",
        },
        _FALCON,
    ),
    Family(r"distilbert", {"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"], "vocab_size": 30522}, _BERT),
    Family(r"roberta-large", roberta(1024, 24, 16), _ROBERTA),
    Family(r"(^|/)roberta", roberta(768, 12, 12), _ROBERTA),
    Family(r"bert-large", bert(1024, 24, 16), _BERT),
    Family(r"(^|/)bert", bert(768, 12, 12), _BERT),
    Family(r"flan-t5-small", t5(512, 1024, 8, 6, gated=True), _T5),
    Family(r"flan-t5-base", t5(768, 2048, 12, 12, gated=True), _T5),
    Family(r"flan-t5-large", t5(1024, 2816, 24, 16, gated=True), _T5),
    Family(r"flan-t5-xl", t5(2048, 5120, 24, 32, gated=True), _T5),
    Family(r"flan-t5-xxl", t5(4096, 10240, 24, 64, gated=True), _T5),
    Family(r"t5-small", t5(512, 2048, 6, 8, gated=False), _T5),
    Family(r"t5-base", t5(768, 3072, 12, 12, gated=False), _T5),
    Family(r"t5-large", t5(1024, 4096, 24, 16, gated=False), _T5),
)
_NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_use_double_quant": True,
}
_CHAT = re.compile(r"instruct|chat|(^|[-_])it([-_]|$)|zephyr|hermes|vicuna|distill")


def family_of(name: str) -> Family | None:
    """Return the row of a checkpoint's name; None if the name is of no known family."""
    lowered = name.lower().rstrip("/")
    return next((family for family in FAMILIES if re.search(family.pattern, lowered)), None) or _by_architecture(name)


def _by_architecture(name: str) -> Family | None:
    """Return a row for a name of which the table of upstream knows the architecture alone, in its default geometry."""
    known = facts_of(name)
    if not known.model_type:
        return None
    config: dict[str, Any] = {"model_type": known.model_type, "dtype": known.dtype or "bfloat16"}
    if known.vocabulary:
        config["vocab_size"] = known.vocabulary
    return Family(known.model_type, config, dataclasses.replace(_LLAMA2, size=known.vocabulary or _LLAMA2.size), exact=False)


def config_of(name: str) -> dict[str, Any] | None:
    """Return the content of the ``config.json`` of a well-known checkpoint; None if it is not known."""
    family = family_of(name)
    if family is None:
        return None
    packed = {"quantization_config": dict(_NF4)} if re.search(r"bnb-4bit", name.lower()) else {}
    return {**family.config, **packed}


def has_chat_template(name: str) -> bool:
    """Return whether a checkpoint's name is that of a chat model. Base models of most families have no chat template."""
    lowered = name.lower()
    return bool(_CHAT.search(lowered)) or bool(re.search(r"qwen", lowered))
