"""A checkpoint that is not on this machine: its config and its tokenizer's tokens, from its name and the upstream tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream import geometries
from kbitlint.upstream.families import facts_of
from kbitlint.upstream.special_tokens import Words, tokens_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_use_double_quant": True,
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a rehearsal takes for a checkpoint."""

    config: Mapping[str, Any]
    """The content of ``config.json``."""
    words: Words
    exact: bool
    """Whether the config has the checkpoint's geometry; if not, only its architecture is known."""


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
    return Checkpoint({**config, **packed}, tokens_of(known), exact)


def _repository(name: str) -> str:
    """Return the name of a repository that a folder of the Hub's cache is a copy of; other names unchanged."""
    cached = re.search(r"models--([^/\\]+)[/\\]snapshots", name)
    return cached[1].replace("--", "/") if cached else name
