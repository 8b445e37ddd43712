"""Reasons why a quantization method does not train, and why transformers does not read a quantized checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kbitlint.facts.values import UNKNOWN
from kbitlint.upstream.quantization import method_named

if TYPE_CHECKING:
    from collections.abc import Callable

_WEIGHT_BITS = re.compile(r"(\d)weight", re.IGNORECASE)


def why_untrainable(method: object, value: Callable[[str], object], layout: object) -> str | None:
    """Return why a method does not train with these arguments; None if it does or the arguments leave it open."""
    row = method_named(method)
    if not row.trains:
        return f"{method} cannot be trained through"
    for name, wanted in row.trains_with:
        if value(name) not in (wanted, UNKNOWN):
            return f"{method} cannot be trained through without {name}={wanted!r}"
    if row.fails_with is not None and value(row.fails_with[0]) == row.fails_with[1]:
        name, wanted = row.fails_with
        return f"{method} cannot be trained through with {name}={wanted!r}"
    if method == "torchao" and isinstance(layout, str):
        found = _WEIGHT_BITS.search(layout)
        return None if found is not None and found[1] == "8" else f"torchao's {layout} cannot be trained through"
    return None


def machine_decides(method: object) -> bool:
    """Return whether it depends on the machine: without the kernel, transformers dequantizes or runs plain code."""
    row = method_named(method)
    return row.falls_back or row.fails_with is not None


def why_unread(config: Mapping[str, Any]) -> str | None:
    """Return why transformers does not read a quantized checkpoint at all, or None if it may."""
    held, packed = config.get("quantization_config"), config.get("quantization")
    quantization = held if isinstance(held, Mapping) else {}
    if isinstance(packed, Mapping) and {"group_size", "bits"} <= packed.keys() and not quantization.get("quant_method"):
        return "its weights are packed by MLX, which transformers does not unpack"
    asked = any(quantization.get(name) for name in ("quant_method", "load_in_4bit", "load_in_8bit"))
    return (
        "quantization_config names no quant_method, so transformers refuses to load it" if quantization and not asked else None
    )
