"""What is known of a checkpoint that a script names: from its config.json on this machine, or else from its name.

A name matches a row of ``family_rows.py`` by its words, so variants of size, organisation and fine-tuning match too, and
folders of copies. A name without a known word tells nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.architectures import ARCHITECTURES, Architecture
from kbitlint.upstream.family_rows import FAMILIES

if TYPE_CHECKING:
    from kbitlint.facts.model_state import CheckpointConfig
    from kbitlint.upstream.family import Family

_SIZE = re.compile(r"(?<!\d)(?:\d{1,4}x\d{1,4}(?:\.\d{1,4})?b|\d{1,4}(?:\.\d{1,4})?[bmk])")
#: billions of parameters of a model that common cards train without checkpointing, and the hidden size up to which a model is
#: one whose name tells no number of parameters: DistilBERT, GPT-2
_SMALL, _NARROW = 3.5, 1600
_DTYPES = ("", "bfloat16", "float16", "float32")
_NAMED = re.compile(r"(bf16|bfloat16)|(fp16|float16|f16)|(fp32|float32)")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a checkpoint, from its config.json or else from its name. Empty values are unknown."""

    family: Family | None = None
    dtype: str = ""
    vocabulary: int = 0
    hidden: int = 0
    tied: bool | None = None
    billions: float = 0
    """The number of parameters in billions, as the name gives it."""
    model_type: str = ""
    size: str = ""
    """The size among those that the family's row lists: ``8b``, ``large``; empty if the name gives none of them."""
    word: str = ""
    """The word of the family's row that the name holds; empty if a config.json is known."""

    @property
    def architecture(self) -> Architecture | None:
        """Return the names of the checkpoint's modules; None if they are not known."""
        return ARCHITECTURES.get(self.model_type)

    @property
    def overflows(self) -> bool:
        """Return whether the checkpoint's activations are known to leave the range of float16."""
        return self.family is not None and self.family.overflows

    @property
    def is_small(self) -> bool:
        """Return whether common cards hold the model's activations, as far as its name or config.json tells."""
        return 0 < self.billions <= _SMALL or (not self.billions and 0 < self.hidden <= _NARROW)


def _normal(name: str) -> str:
    """Return the last part of a checkpoint's name: lower case, one separator, none between a word and its number."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower().replace("_", "-").replace(" ", "-")
    return re.sub(r"(?<=[a-z])-(?=\d)", "", last)


def _holds(name: str, word: str) -> bool:
    """Return whether a normalized name holds a family's word: alone, or with a size behind it."""
    start = name.find(word)
    while start >= 0:
        before, rest = name[start - 1 : start] if start else "", name[start + len(word) :]
        if not before.isalnum() and (not rest[:1].isalnum() or (not word[-1].isdigit() and _SIZE.match(rest))):
            return True
        start = name.find(word, start + 1)
    return False


def _parts(name: str) -> list[str]:
    """Return the words of the last part of a name, lower case."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    return re.split(r"[^a-z0-9.]+", last)


@functools.lru_cache(maxsize=64)
def family_of(name: str) -> Family | None:
    """Return the family of a checkpoint, judged by its name; None if no row fits."""
    normal = _normal(name)
    return next((row for row in FAMILIES if any(_holds(normal, word) for word in row.word.split())), None)


@functools.lru_cache(maxsize=64)
def _from_name(name: str) -> Known:
    row, normal = family_of(name), _normal(name)
    found = _SIZE.findall(normal)
    billions = _billions(found[0]) if found else 0.0
    if row is None:
        return Known(billions=billions)
    sizes = {size: int(width) for size, _, width in (item.partition(":") for item in row.hidden.split())}
    parts = (*found, *reversed(_parts(name)), *reversed(_parts(normal)))
    size = next((word for word in parts if word in sizes), "")
    said = _NAMED.search(normal)
    dtype = _DTYPES[said.lastindex or 0] if said is not None else row.dtype
    tied = row.tied == "*" or (bool(size) and size in row.tied.split())
    word = max((word for word in row.word.split() if _holds(normal, word)), key=len)
    return Known(row, dtype, row.vocabulary, sizes.get(size, 0), tied, billions, row.architecture, size, word)


def facts_of(name: object, config: CheckpointConfig | None = None) -> Known:
    """Return what is known of a checkpoint.

    Args:
        name: The checkpoint's name in a script; a value that is no string tells nothing.
        config: Its config.json on this machine, which takes precedence; None if there is none.
    """
    known = _from_name(name) if isinstance(name, str) else Known()
    if config is None:
        return known
    family = known.family if known.model_type == config.model_type else None
    return Known(
        family,
        config.dtype,
        config.vocabulary,
        config.hidden,
        config.tied,
        known.billions,
        config.model_type if not config.remote else "",
    )


def _billions(size: str) -> float:
    """Return a size as billions of parameters: ``7b``, ``350m``; the experts of ``8x7b`` share their attention."""
    count, _, each = size.rpartition("x")
    number = float(each[:-1]) / (1 if each.endswith("b") else 1000)
    return number * int(count) * 0.83 if count else number
