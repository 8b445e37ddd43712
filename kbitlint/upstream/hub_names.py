"""Properties of a published checkpoint that follow from its name, for checkpoints without local files."""

from __future__ import annotations

import functools
import re

from kbitlint.upstream.quantization import METHODS

_TUNED = frozenset(["instruct", "chat", "it"])
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Return whether the name is a Hub id, and not a folder that a script wrote."""
    return _HUB_ID.fullmatch(name) is not None and _of_folders().match(name) is None


def stored_quantized(name: str) -> bool:
    """Return whether the checkpoint is stored quantized, judged by its name."""
    return _of_quantized().search(name) is not None


def other_weights(one: str, other: str) -> bool:
    """Return whether two Hub ids certainly name checkpoints with different weights, as far as names tell.

    Copies in another format or quantization have the same name but for words such as ``bnb-4bit``. Another organisation may
    publish a copy under a name of its own, so only its tuning (``instruct``) or its size can tell it apart.
    """
    if not (is_hub_id(one) and is_hub_id(other)):
        return False
    (first, words), (second, others) = _named(one), _named(other)
    if words == others:
        return False
    if first == second:
        return True
    tuned, sizes = (_TUNED.isdisjoint(words) != _TUNED.isdisjoint(others)), [_sizes(words), _sizes(others)]
    return tuned or (all(sizes) and sizes[0] != sizes[1])


def _named(name: str) -> tuple[str, frozenset[str]]:
    """Return the organisation, and the words of a name without those of a format."""
    owner, _, last = name.lower().partition("/")
    words = re.split(r"[-_]", last)
    return owner, frozenset(word for word in words if not _of_formats().fullmatch(word))


def _sizes(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words if re.fullmatch(r"\d+(?:\.\d+)?[bm]", word))


def stored_method(name: str) -> tuple[str, int | None] | None:
    """Return the (method, bits) in which the checkpoint is stored, judged by its name; None if the name does not tell both.

    Bits None means that the method alone is known.
    """
    last = name.rstrip("/").rpartition("/")[2].lower()
    found = _of_methods().search(last)
    if found is None:
        return None
    four, eight, gptq, awq = found.groups()
    if four or eight:
        return "bitsandbytes", 4 if four else 8
    return ("gptq", None) if gptq else ("awq", None) if awq else None


def published_method(name: str) -> str | None:
    """Return the method in which the publisher itself stores a checkpoint whose name does not tell it; None for others.

    Copies under another organisation may be converted, and names with a dtype in them are.
    """
    return next((method for method, pattern in _of_published() if pattern.fullmatch(name)), None)


# compiled on demand: rules import this module, and most runs need no pattern
@functools.cache
def _of_formats() -> re.Pattern[str]:
    """Return the words of a name that tell of a format or of its maker, and not of weights."""
    return re.compile(
        r"|meta|hf|bnb|\d{0,2}bits?|nf4|fp4|unsloth|gptq|awq|exl2|gguf|mlx|dynamic|quantized|quant|quants|sharded|shard|safetensors"
        r"|\d+gb|\d{1,3}g|ct2|torch|transformers|pytorch|w\d+a\d+|(?:bf|fp|int)\d+|[48]"
    )


@functools.cache
def _of_folders() -> re.Pattern[str]:
    return re.compile(
        r"(out|output|outputs|result|results|checkpoint|checkpoints|ckpt|ckpts|model|models|saved?|runs?|data|merged)\w*/"
    )


@functools.cache
def _of_methods() -> re.Pattern[str]:
    return re.compile(
        r"(?<![a-z0-9])(?:(bnb[-_.]?4[-_]?bits?|bnb[-_]nf4)|(bnb[-_.]?(?:8[-_]?bits?|int8))|(gptq)|(awq))(?![a-z0-9])"
    )


@functools.cache
def _of_published() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the Hub ids by method; each config.json has a ``quantization_config`` with this ``quant_method``."""
    ids = {
        "mxfp4": r"openai/gpt-oss-(safeguard-)?(20|120)b|unsloth/gpt-oss-(20|120)b",
        "fp8": r"deepseek-ai/DeepSeek-(V3(\.1|\.2)?(-Base|-0324|-Exp|-Terminus|-Speciale)?|R1(-Zero|-0528)?)"
        r"|moonshotai/Kimi-K2-(Base|Instruct(-0905)?)|MiniMaxAI/MiniMax-M2(\.\d)?|mistralai/Ministral-3-\d+B-Instruct-2512"
        r"|mistralai/Devstral-Small-2-24B-Instruct-2512|XiaomiMiMo/MiMo-V2-Flash(-Base)?|Qwen/Qwen3[\w.-]*-FP8",
        "compressed-tensors": r"moonshotai/Kimi-K2-Thinking|RedHatAI/[\w.-]+-(FP8[\w-]*|quantized\.w\d+a\d+)",
        "bitnet": r"microsoft/bitnet-b1\.58-2B-4T",
    }
    return tuple((method, re.compile(pattern, re.IGNORECASE)) for method, pattern in ids.items())


@functools.cache
def _of_quantized() -> re.Pattern[str]:
    return re.compile(
        "|".join(method.hub_name for method in METHODS if method.hub_name)
        # names with the format of the numbers or of the file
        + r"|[1-8].?bit|fp8|fp4|int[48]|nf4|quant|exl2|gguf|w[48]a"
        # names without such a mark whose weights are stored in 4 or 8 bits
        r"|gpt-oss|deepseek-(v[3-9]|r1)|kimi-k2|minimax-m[2-9]|ministral-3|mistral-large-3|mistral-small-4|devstral-2|devstral-small-2|mimo-v2",
        re.IGNORECASE,
    )
