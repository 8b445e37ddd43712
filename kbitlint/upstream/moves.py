"""Which versions of transformers refuse to move a bitsandbytes model: ``to`` and ``cuda`` of ``modeling_utils.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from kbitlint.facts.values import Value

#: (method, bits) -> the first version that refuses, and the first that does not; read in 4.28 to 5.23
_REFUSED: dict[tuple[str, Value], tuple[str, str]] = {
    ("to", 4): ("4.30", "4.45"),
    ("to", 8): ("4.28", "5.0"),
    ("cuda", 4): ("4.42", "4.45"),
    ("cuda", 8): ("4.42", "no version"),
}


def refusal_of(method: str, bits: Value, version: str) -> str:
    """Return the first version that moves a model of these bits, if this version refuses; empty if it does not refuse."""
    since, until = _REFUSED.get((method, bits), ("", ""))
    have = number(version)
    refuses = bool(since) and have >= number(since) and (not number(until) or have < number(until))
    return until if refuses else ""
