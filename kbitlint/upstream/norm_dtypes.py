"""What a script tells of the dtype in which norms hand on their output, and of casts that follow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.facts.model_state import BIAS
from kbitlint.upstream.families import facts_of

if TYPE_CHECKING:
    from kbitlint.facts.model_state import ModelState

#: types whose norms multiply by their weight last, so that a float32 weight gives float32 (transformers 5.23, ``*RMSNorm``
#: and ``T5LayerNorm``), and whose head takes what comes
_PROMOTING = frozenset(
    [
        *("apertus", "arcee", "cwm", "deepseek_v2", "deepseek_v3", "ernie4_5", "ernie4_5_moe", "exaone4", "glm", "glm4"),
        *("glm4_moe", "granite", "granitemoe", "granitemoeshared", "llama", "ministral3", "mistral", "mixtral", "mt5", "olmoe"),
        *("phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "solar_open", "t5", "umt5"),
    ]
)
#: types whose head has a bias
_BIASED = ("phi", "gptj", "codegen")
_HALF = ("float16", "bfloat16")
_CAST = re.compile(r"\.(?:bfloat16|half)\(\)|\.to\([^)\n]{0,60}(?:torch\.(?:bfloat16|float16|half)|dtype ?=)")
_AUTOCAST = re.compile(
    r"autocast|mixed_precision|Accelerator|Fabric|Lightning|deepspeed|[Ll]iger|set_default_dtype|\b(?:bf16|fp16)\b"
)
_OF_TRL = re.compile(r"\b(?:SFT|DPO|KTO|GRPO|RLOO|ORPO|CPO|Reward)Trainer\(")


def widens(text: str) -> bool:
    """Return whether a script casts the operands of matrix products, or the head, in a way of its own."""
    return any(pattern.search(text) for pattern in (_AUTOCAST, _OF_TRL, _CAST))


def promoted(model: ModelState) -> str:
    """Return which parts, that the script cast to float32, meet a head in half precision; empty if none certainly do."""
    load, config, cast = model.load, model.quantization, model.widened
    if load is None or cast is None or model.recast or not model.certain or not load.callee.startswith("transformers."):
        return ""
    if load.value("trust_remote_code", False) is not False or model.method not in (None, "bitsandbytes"):  # noqa: FBT003  # the default
        return ""
    known = facts_of(load.value("pretrained_model_name_or_path"), model.named)
    stored = known.dtype if "auto" in (load.value("dtype"), load.value("torch_dtype")) else ""
    skipped = config.value("llm_int8_skip_modules") if config is not None else None
    head = skipped is None or (isinstance(skipped, tuple) and "lm_head" in skipped)  # else it is packed, and takes any dtype
    if not head or not {model.dtype, stored}.intersection(_HALF):
        return ""
    if known.model_type in _PROMOTING:
        return "norms"
    biased = known.model_type in _BIASED and load.callee.endswith("CausalLM.from_pretrained")
    return "bias of the head" if biased and cast.callee == BIAS else ""
