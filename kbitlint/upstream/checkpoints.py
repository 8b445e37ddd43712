"""A checkpoint that is not on this machine: its config and its tokenizer's tokens, from its name and the tables beside this.

Rehearsals and measurements need it, where neither a folder, the cache nor the Hub has the checkpoint.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kbitlint.errors import did_you_mean
from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream import geometries
from kbitlint.upstream.families import Known, facts_of
from kbitlint.upstream.family_rows import FAMILIES
from kbitlint.upstream.hub_names import stored_quantized
from kbitlint.upstream.special_tokens import Words, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.upstream.family import Family

_NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_use_double_quant": True,
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the name of a checkpoint tells."""

    config: Mapping[str, Any]
    """The content of ``config.json``."""
    words: Words
    exact: bool
    """Whether the config has the checkpoint's geometry; if not, only its architecture is known."""
    row: str
    """The row of its family, and the size that its name gives."""


def checkpoint_of(name: str) -> Checkpoint | None:
    """Return a checkpoint by its name; None if the name is of no known family."""
    known = facts_of(_repository(name))
    found = geometries.config_of(known)
    if found is not None:
        config, exact = found
    elif known.model_type:
        config, exact = {"model_type": known.model_type, "dtype": known.dtype or "bfloat16"}, False
        if known.vocabulary:
            config["vocab_size"] = known.vocabulary
    else:
        return None
    packed = {"quantization_config": dict(_NF4)} if re.search(r"bnb-4bit", name.lower()) else {}
    source = known.family.source if known.family is not None else known.model_type
    row = f"{source}, size {known.size}" if known.size else source
    return Checkpoint({**config, **packed}, tokens_of(known), exact, row)


def measurable(name: str) -> Checkpoint | None:
    """Return a checkpoint whose name tells all that decides its bytes: its geometry, and how it is stored. None for others."""
    known = checkpoint_of(name)
    if known is None or not known.exact:
        return None
    return known if "quantization_config" in known.config or not stored_quantized(name) else None


def nearest(name: str) -> str:
    """Return a hint at names that ``measurable`` knows: the sizes of the name's family, or a similar name. Or nothing."""
    known = facts_of(name)
    if known.family is not None and stored_quantized(name):
        return "; the name says that it is stored quantized, and not in which layers"
    of_family = [one for one in _names_of(known.family) if one.startswith(known.word)] if known.family is not None else []
    if of_family:
        return f"; known by name alone are {', '.join(of_family)}"
    names = (one for family in FAMILIES if geometries.config_of(Known(family)) for one in _names_of(family))
    return did_you_mean(name.rpartition("/")[2].lower(), names)


def _names_of(family: Family) -> Iterator[str]:
    """Yield the names of a family, each with a size, that tell a geometry."""
    for word in family.word.split():
        for size in (item.partition(":")[0] for item in family.hidden.split()):
            name = word if size in word else f"{word}-{size}"
            if measurable(name) is not None:
                yield name


def _repository(name: str) -> str:
    """Return the name of a repository that a folder of the Hub's cache is a copy of; other names unchanged."""
    cached = re.search(r"models--([^/\\]+)[/\\]snapshots", name)
    return cached[1].replace("--", "/") if cached else name
