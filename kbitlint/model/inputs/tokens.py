"""Token ids for a batch: of the model's vocabulary, without the ids that mean something else than text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tokens_of(config: Any, text: Any, shape: tuple[int, ...]) -> Tensor:
    """Return random ids of a shape that ends with the sequence. Ids with a meaning in the config are avoided.

    Args:
        config: The config of the model.
        text: The part of it that describes the text model.
        shape: The shape of the ids.
    """
    vocabulary = int(getattr(text, "vocab_size", None) or getattr(config, "vocab_size", None) or 2)
    special = {
        value for part in (config, text) for name, value in integers_of(part) if name.endswith(("_token_id", "_token_index"))
    }
    ordinary = [number for number in range(min(vocabulary, 512)) if number not in special] or [0]
    made = torch.tensor(ordinary)[torch.randint(0, len(ordinary), shape)]
    end = getattr(text, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < vocabulary:
        made[..., -1] = end  # text ends with this token, and encoder-decoder classifiers read their result at it
    return made


def integers_of(config: Any) -> list[tuple[str, int]]:
    """Return the fields of a config that hold an integer."""
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    return [(name, value) for name, value in values.items() if isinstance(value, int)]


def placeholders(config: Any, batch: int) -> Tensor:
    """Return the tokens that the features of an image replace. There are none if the config does not set their number."""
    names = ("image_token_index", "image_token_id", "video_token_index", "video_token_id")
    token = next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
    count = getattr(config, "num_query_tokens", None)
    shape = (batch, count if token is not None and isinstance(count, int) else 0)
    return torch.full(shape, token or 0, dtype=torch.long)
