"""What a script tells of the dtype in which norms hand on their output, and of casts that follow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
_HALF = ("float16", "bfloat16")
_CAST = re.compile(r"\.(?:bfloat16|half)\(\)|\.to\([^)\n]{0,60}(?:torch\.(?:bfloat16|float16|half)|dtype ?=)")
_AUTOCAST = re.compile(r"autocast|mixed_precision|Accelerator|Fabric|Lightning|set_default_dtype|\b(?:bf16|fp16)\b")
_OF_TRL = re.compile(r"\b(?:SFT|DPO|KTO|GRPO|RLOO|ORPO|CPO|Reward)Trainer\(")


def widens(text: str) -> bool:
    """Return whether a script casts the operands of matrix products, or the head, in a way of its own."""
    return any(pattern.search(text) for pattern in (_AUTOCAST, _OF_TRL, _CAST))


def promotes(model: ModelState) -> bool:
    """Return whether the norms of a model, which the script cast to float32, give float32 to a head in half precision."""
    load, config = model.load, model.quantization
    if load is None or model.widened is None or model.recast or model.dtype not in _HALF or not model.certain:
        return False
    if load.value("trust_remote_code", False) is not False or model.method not in (None, "bitsandbytes"):  # noqa: FBT003  # the default
        return False
    skipped = config.value("llm_int8_skip_modules") if config is not None else None
    head = skipped is None or (isinstance(skipped, tuple) and "lm_head" in skipped)  # else it is packed, and takes any dtype
    known = facts_of(load.value("pretrained_model_name_or_path"), model.named)
    return head and known.model_type in _PROMOTING
